<?php // Sends one mail with PHP's mail(): php -d sendmail_path=… mail.php KIND FROM TO ATTACHMENT
[, $kind, $from, $to, $file] = $argv;
$text = $kind === "text" ? "Hello,\n.\n..\nplain text.\n" : "Grüße, 你好, €\n.\n";
$subject = $kind === "text" ? "text" : mb_encode("Grüße, $kind");
$headers = ["From" => $from, "MIME-Version" => "1.0"];
if ($kind === "attachment") {
    $headers["Content-Type"] = 'multipart/mixed; boundary="=_php"';
    $text = "--=_php\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n$text\n"
        . "--=_php\nContent-Type: application/pdf\nContent-Transfer-Encoding: base64\n"
        . "Content-Disposition: attachment; filename=\"scan.pdf\"\n\n"
        . chunk_split(base64_encode(file_get_contents($file)), 76, "\n") . "--=_php--\n";
} else {
    $headers["Content-Type"] = "text/plain; charset=utf-8";
    $headers["Content-Transfer-Encoding"] = "8bit";
}
exit(mail($to, $subject, $text, $headers) ? 0 : 1);

// An encoded word; Debian's php-cli comes without mbstring.
function mb_encode(string $text): string
{
    return "=?utf-8?B?" . base64_encode($text) . "?=";
}
