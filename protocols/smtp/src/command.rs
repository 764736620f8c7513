//! One command line to one command.

use mail::{AddressError, Mailbox};

/// Octets of a command line with its CRLF, at most (RFC 5321, 4.5.3.1.4).
const MAX_LINE: usize = 512;
/// What extensions add to MAIL: 26 for SIZE (RFC 1870, 3), 17 for BODY (RFC 6152, 2), 10 for SMTPUTF8 (RFC
/// 6531, 3.1); and of those whose parameters are taken and not heeded, 500 for AUTH (RFC 4954, 3) and 109 for
/// RET and ENVID (RFC 3461, 4).
pub(crate) const MAX_MAIL_LINE: usize = MAX_LINE + 26 + 17 + 10 + 500 + 109;
/// What NOTIFY and ORCPT add to RCPT (RFC 3461, 4).
const MAX_RECIPIENT_LINE: usize = MAX_LINE + 529;

/// A command as the session acts on it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Hello(Hello),
    Mail(MailParameters),
    /// The address as it stands between the angle brackets.
    Recipient(Mailbox),
    Data,
    /// So many octets of a message follow; whether they are the last.
    Chunk(u64, bool),
    Reset,
    Noop,
    Verify,
    Help,
    /// What has become of the message that was given this id.
    Status([u8; 16]),
    Quit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hello {
    Plain,
    Extended,
}

/// What MAIL said besides the sender's address, which is not kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MailParameters {
    pub(crate) size: Option<u64>,
    pub(crate) utf8: bool,
}

/// Why a line is no command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadCommand {
    TooLong,
    /// Octets that no command may contain.
    Octets,
    Unknown,
    /// A known command that is not offered.
    NotOffered,
    /// Two of those that some clients insist on unless they are told not to.
    Auth,
    StartTls,
    /// A verb of HTTP: a browser was made to talk to us.
    Http,
    Arguments,
    Parameter,
    Address,
    /// A name that means another machine at each exit.
    Local,
    /// A chunk of a length that is not known: what follows is no command.
    Chunk,
    /// The beginning of a TLS handshake.
    Tls,
    /// A line that ends with LF alone.
    BareLineEnd,
}

/// Reads a line without its CRLF.
pub(crate) fn parse(line: &[u8]) -> Result<Command, BadCommand> {
    // The name that a client gives itself is not kept: it may be anything.
    if let Some((verb, [_, ..])) = line.split_at_checked(5) {
        let hello = match verb.to_ascii_uppercase().as_slice() {
            b"HELO " => Some(Hello::Plain),
            b"EHLO " => Some(Hello::Extended),
            _ => None,
        };
        if let Some(hello) = hello {
            let is_long = line.len() + 2 > MAX_LINE;
            return if is_long { Err(BadCommand::TooLong) } else { Ok(Command::Hello(hello)) };
        }
    }
    let text = core::str::from_utf8(line).map_err(|_| BadCommand::Octets)?;
    if text.chars().any(char::is_control) {
        return Err(BadCommand::Octets);
    }
    let text = text.trim_end_matches(' ');
    let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
    let verb = verb.to_ascii_uppercase();
    let most = match verb.as_str() {
        "MAIL" => MAX_MAIL_LINE,
        "RCPT" => MAX_RECIPIENT_LINE,
        _ => MAX_LINE,
    };
    if line.len() + 2 > most {
        return Err(BadCommand::TooLong);
    }
    let alone = |command| if rest.is_empty() { Ok(command) } else { Err(BadCommand::Arguments) };
    let with_text =
        |command| if rest.is_empty() { Err(BadCommand::Arguments) } else { Ok(command) };
    match verb.as_str() {
        "HELO" => with_text(Command::Hello(Hello::Plain)),
        "EHLO" => with_text(Command::Hello(Hello::Extended)),
        "MAIL" => mail(rest),
        "RCPT" => recipient(rest),
        "DATA" => alone(Command::Data),
        "BDAT" => chunk(rest),
        "RSET" => alone(Command::Reset),
        "NOOP" => Ok(Command::Noop),
        "VRFY" => with_text(Command::Verify),
        "HELP" => Ok(Command::Help),
        "XFOGSTATUS" => status(rest),
        "QUIT" => alone(Command::Quit),
        "AUTH" => Err(BadCommand::Auth),
        "STARTTLS" => Err(BadCommand::StartTls),
        "EXPN" | "TURN" | "ETRN" | "SEND" | "SOML" | "SAML" => Err(BadCommand::NotOffered),
        "GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "CONNECT" | "OPTIONS" | "TRACE" | "PATCH"
        | "PRI" => Err(BadCommand::Http),
        _ => Err(BadCommand::Unknown),
    }
}

/// RFC 3030, 2: a number of octets, and `LAST` with the last of them.
fn chunk(rest: &str) -> Result<Command, BadCommand> {
    let (octets, last) = rest.split_once(' ').unwrap_or((rest, ""));
    let is_number = octets.bytes().all(|octet| octet.is_ascii_digit());
    let octets = octets.parse().ok().filter(|_| is_number).ok_or(BadCommand::Chunk)?;
    match last {
        "" => Ok(Command::Chunk(octets, false)),
        last if last.eq_ignore_ascii_case("LAST") => Ok(Command::Chunk(octets, true)),
        _ => Err(BadCommand::Chunk),
    }
}

/// 32 hexadecimal digits, as the reply to DATA has them.
fn status(rest: &str) -> Result<Command, BadCommand> {
    let is_id = rest.len() == 32 && rest.bytes().all(|octet| octet.is_ascii_hexdigit());
    let id = u128::from_str_radix(rest, 16).ok().filter(|_| is_id);
    Ok(Command::Status(id.ok_or(BadCommand::Arguments)?.to_be_bytes()))
}

fn mail(rest: &str) -> Result<Command, BadCommand> {
    // Whatever stands between the brackets: nothing depends on it.
    let (_, parameters) = path(rest, "FROM:")?;
    let mut read = MailParameters::default();
    let mut body = false;
    for parameter in parameters.split(' ').filter(|parameter| !parameter.is_empty()) {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match key.to_ascii_uppercase().as_str() {
            "SIZE" if read.size.is_none() => {
                let digits = (1..=20).contains(&value.len())
                    && value.bytes().all(|octet| octet.is_ascii_digit());
                if !digits {
                    return Err(BadCommand::Arguments);
                }
                // 20 digits may not fit the integer; such a message is too big in any case.
                read.size = Some(value.parse().unwrap_or(u64::MAX));
            }
            "BODY" if !body => {
                if !["7BIT", "8BITMIME"].contains(&value.to_ascii_uppercase().as_str()) {
                    return Err(BadCommand::Arguments);
                }
                body = true;
            }
            // They speak of the sender and of receipts, and nobody here learns of the one or sends the other.
            "AUTH" | "RET" | "ENVID" => {}
            "SMTPUTF8" if !read.utf8 && parameter.len() == key.len() => read.utf8 = true,
            _ => return Err(BadCommand::Parameter),
        }
    }
    Ok(Command::Mail(read))
}

fn recipient(rest: &str) -> Result<Command, BadCommand> {
    let (path, parameters) = path(rest, "TO:")?;
    // What has become of a message is asked with XFOGSTATUS.
    let is_of_receipts = |parameter: &str| {
        let key = parameter.split_once('=').map_or(parameter, |(key, _)| key);
        key.eq_ignore_ascii_case("NOTIFY") || key.eq_ignore_ascii_case("ORCPT")
    };
    let mut parameters = parameters.split(' ').filter(|parameter| !parameter.is_empty());
    if !parameters.all(is_of_receipts) {
        return Err(BadCommand::Parameter);
    }
    // A route before the address is ignored (RFC 5321, 4.1.2 and C).
    let path = match path.strip_prefix('@').and_then(|route| route.split_once(':')) {
        Some((_, path)) => path,
        None => path,
    };
    let mailbox = address(path)?;
    if mailbox.domain().is_global() {
        Ok(Command::Recipient(mailbox))
    } else {
        Err(BadCommand::Local)
    }
}

/// `KEYWORD:<path> parameters`; blanks before the bracket are common and harmless.
fn path<'a>(rest: &'a str, keyword: &str) -> Result<(&'a str, &'a str), BadCommand> {
    let (start, after) = rest.split_at_checked(keyword.len()).ok_or(BadCommand::Arguments)?;
    if !start.eq_ignore_ascii_case(keyword) {
        return Err(BadCommand::Arguments);
    }
    let bracketed = after.trim_start_matches(' ').strip_prefix('<').ok_or(BadCommand::Arguments)?;
    let end = closing_bracket(bracketed).ok_or(BadCommand::Arguments)?;
    let (path, parameters) = bracketed.split_at_checked(end).ok_or(BadCommand::Arguments)?;
    let parameters = parameters.strip_prefix('>').unwrap_or_default();
    if !parameters.is_empty() && !parameters.starts_with(' ') {
        return Err(BadCommand::Arguments);
    }
    Ok((path, parameters.trim_start_matches(' ')))
}

/// The first `>` outside a quoted string.
fn closing_bracket(text: &str) -> Option<usize> {
    let mut quoted = false;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            '>' if !quoted => return Some(at),
            '"' if !escaped => quoted = !quoted,
            _ => {}
        }
        escaped = c == '\\' && !escaped;
    }
    None
}

fn address(path: &str) -> Result<Mailbox, BadCommand> {
    Mailbox::parse(path).map_err(|error: AddressError| match error {
        AddressError::Length | AddressError::NoAt | AddressError::Local | AddressError::Domain => {
            BadCommand::Address
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parameters_of_mail() {
        let read = |line: &str| parse(line.as_bytes());
        let with = |size, utf8| Ok(Command::Mail(MailParameters { size, utf8 }));
        assert_eq!(read("MAIL FROM:<>"), with(None, false));
        assert_eq!(read("mail from: <a@b> size=10 BODY=8bitmime SMTPUTF8"), with(Some(10), true));
        assert_eq!(read("MAIL FROM:<\">\"@b>"), with(None, false));
        let huge = "MAIL FROM:<> SIZE=99999999999999999999";
        assert_eq!(read(huge), with(Some(u64::MAX), false));
        for (bad, why) in [
            ("MAIL FROM:<> SIZE=", BadCommand::Arguments),
            ("MAIL FROM:<> SIZE=-1", BadCommand::Arguments),
            ("MAIL FROM:<> SIZE=1x", BadCommand::Arguments),
            ("MAIL FROM:<> SIZE=1 SIZE=2", BadCommand::Parameter),
            ("MAIL FROM:<> XVERP", BadCommand::Parameter),
            ("MAIL FROM:<> BODY=BINARYMIME", BadCommand::Arguments),
            ("MAIL FROM:<> SMTPUTF8=1", BadCommand::Parameter),
            ("MAIL FROM:<>SIZE=1", BadCommand::Arguments),
            ("MAIL FROM:a@b", BadCommand::Arguments),
            ("MAIL TO:<a@b>", BadCommand::Arguments),
            ("MAIL", BadCommand::Arguments),
            ("RCPT TO:<>", BadCommand::Address),
            ("RCPT TO:<postmaster>", BadCommand::Address),
            ("RCPT TO:<@relay:a@b>", BadCommand::Local),
            ("RCPT TO:<root@localhost>", BadCommand::Local),
            ("RCPT TO:<x@10.0.0.1>", BadCommand::Local),
            ("RCPT TO:<a@b.example> RRVS=x", BadCommand::Parameter),
            ("DATA now", BadCommand::Arguments),
            ("EHLO", BadCommand::Arguments),
            ("BDAT", BadCommand::Chunk),
            ("BDAT x", BadCommand::Chunk),
            ("BDAT +1 LAST", BadCommand::Chunk),
            ("BDAT 1 LAST x", BadCommand::Chunk),
            ("BDAT 18446744073709551616", BadCommand::Chunk),
            ("GET / HTTP/1.1", BadCommand::Http),
            ("XYZZY", BadCommand::Unknown),
            ("", BadCommand::Unknown),
            ("NOOP \u{7}", BadCommand::Octets),
        ] {
            assert_eq!(read(bad), Err(why), "{bad}");
        }
        assert_eq!(parse(b"NOOP \xff"), Err(BadCommand::Octets));
    }

    #[test]
    fn what_is_thrown_away_may_be_anything() {
        for sender in
            ["root", "root@build_host", "a..b@c", "me@[127.0.0.1]", "@r:me@x", "me@x.", "\u{e9}"]
        {
            let line = format!("MAIL FROM:<{sender}> AUTH=<> RET=HDRS ENVID=x");
            assert_eq!(parse(line.as_bytes()), Ok(Command::Mail(MailParameters::default())));
        }
        assert_eq!(parse(b"EHLO \xe9cole\x07"), Ok(Command::Hello(Hello::Extended)));
        assert_eq!(parse(b"helo \xe9"), Ok(Command::Hello(Hello::Plain)));
        let recipient = |line: &str| match parse(line.as_bytes()) {
            Ok(Command::Recipient(mailbox)) => mailbox.to_text(),
            other => panic!("{other:?}"),
        };
        let receipts = "RCPT TO:<a@b.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a@b.example";
        assert_eq!(recipient(receipts), "a@b.example");
        assert_eq!(recipient("RCPT TO:<@relay.example,@x:a@b.example>"), "a@b.example");
        assert_eq!(recipient("RCPT TO:<ann..b@phone.example>"), "\"ann..b\"@phone.example");
    }

    proptest! {
        #[test]
        fn any_line_is_parsed_without_harm(line: Vec<u8>) {
            let _ = parse(&line);
        }

        #[test]
        fn any_address_is_parsed_without_harm(text in "(RCPT TO|MAIL FROM):?<?\\PC{0,30}>?\\PC{0,10}") {
            let _ = parse(text.as_bytes());
        }
    }
}
