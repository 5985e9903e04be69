// Sends one mail with Jakarta Mail (Debian's libmail-java): java -cp …/javax.mail.jar Mail.java PORT KIND FROM TO ATTACHMENT
import java.io.File;
import java.util.Properties;
import javax.mail.Message;
import javax.mail.Session;
import javax.mail.Transport;
import javax.mail.internet.InternetAddress;
import javax.mail.internet.MimeBodyPart;
import javax.mail.internet.MimeMessage;
import javax.mail.internet.MimeMultipart;

public class Mail {
    public static void main(String[] arguments) throws Exception {
        String kind = arguments[1];
        Properties properties = new Properties();
        properties.put("mail.smtp.host", "127.0.0.1");
        properties.put("mail.smtp.port", arguments[0]);
        properties.put("mail.smtp.localhost", "client.test");
        properties.put("mail.smtp.allow8bitmime", "true");
        MimeMessage message = new MimeMessage(Session.getInstance(properties));
        message.setFrom(new InternetAddress(arguments[2]));
        message.setRecipient(Message.RecipientType.TO, new InternetAddress(arguments[3]));
        String text = kind.equals("text") ? "Hello,\n.\n..\nplain text.\n" : "Grüße, 你好, €\n.\n";
        message.setSubject(kind.equals("text") ? "text" : "Grüße, " + kind, "utf-8");
        if (kind.equals("attachment")) {
            MimeBodyPart first = new MimeBodyPart(), second = new MimeBodyPart();
            first.setText(text, "utf-8");
            second.attachFile(new File(arguments[4]));
            message.setContent(new MimeMultipart(first, second));
        } else {
            message.setText(text, "utf-8");
        }
        Transport.send(message);
    }
}
