#!/usr/bin/perl
# Sends one mail with Net::SMTP, which is part of Perl: net-smtp.pl PORT KIND FROM TO ATTACHMENT
use strict;
use warnings;
use MIME::Base64;
use Net::SMTP;

my ($port, $kind, $from, $to, $file) = @ARGV;
my $text = $kind eq 'text' ? "Hello,\n.\n..\nplain text.\n" : "Gr\xc3\xbc\xc3\x9fe, \xe4\xbd\xa0\xe5\xa5\xbd\n.\n";
my $type = "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n";
my $body = "$type\n$text";
if ($kind eq 'attachment') {
    open my $input, '<:raw', $file or die "$file: $!";
    local $/;
    $body = "Content-Type: multipart/mixed; boundary=\"=_perl\"\n\n--=_perl\n$body\n--=_perl\n"
        . "Content-Type: application/pdf\nContent-Transfer-Encoding: base64\n"
        . "Content-Disposition: attachment; filename=\"scan.pdf\"\n\n" . encode_base64(<$input>) . "--=_perl--\n";
}
my $smtp = Net::SMTP->new('127.0.0.1', Port => $port, Hello => 'client.test') or die "no connection: $@";
$smtp->mail($from) && $smtp->to($to) && $smtp->data or die $smtp->message;
# In two pieces, the first of which ends within a line.
$smtp->datasend("From: $from\nTo: $to\nSubj");
$smtp->datasend("ect: $kind\nMIME-Version: 1.0\n$body");
$smtp->dataend && $smtp->quit or die $smtp->message;
