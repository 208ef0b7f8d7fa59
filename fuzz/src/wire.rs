//! What must hold for any bytes that a connection begins with?
//!
//! What is accepted has one meaning for every program, also for those that read less strictly than we do: they are played
//! here, each with its own idea of where a line ends and what a name is. `tests/fuzz.rs` does the same in short.

use pierhead::front::raw;

/// The longest header of the PROXY protocol: a few certificates.
const LONGEST_PROXY: usize = 16 << 10;

/// Gives the bytes to every reader of raw bytes.
pub(crate) fn check(data: &[u8]) {
    let cut = data.first().map_or(0, |byte| usize::from(*byte)) % (data.len() + 1);
    check_head(data, cut);
    check_chunks(data, cut);
    check_proxy_header(data);
    // The header of a request, and behind it its body.
    if let Ok(Some((length, true))) = raw::head(data, data.len()) {
        check_chunks(&data[length..], cut);
    }
}

fn check_head(data: &[u8], cut: usize) {
    let whole = raw::head(data, data.len());
    let pieces = raw::head(data, cut);
    assert_eq!(whole.is_ok(), pieces.is_ok(), "it does not matter in which pieces it comes");
    let Ok(Some((length, chunked))) = whole else { return };
    assert_eq!(pieces, whole, "it does not matter in which pieces it comes");
    let head = &data[..length];
    assert!(head.ends_with(b"\r\n\r\n") && !head.contains(&0), "a header ends with an empty line");

    let strict = lines(head, b"\r\n");
    for other in [lines(head, b"\n"), lines(head, b"\r")] {
        let trimmed: Vec<&[u8]> = other.iter().map(|line| line.trim_ascii()).filter(|line| !line.is_empty()).collect();
        let same: Vec<&[u8]> = strict.iter().map(|line| line.trim_ascii()).filter(|line| !line.is_empty()).collect();
        assert_eq!(trimmed, same, "lines end where every program sees their end");
    }
    let fields: Vec<&[u8]> = strict.iter().filter(|line| !line.is_empty()).skip(1).copied().collect();
    assert!(fields.len() <= raw::FIELDS);
    assert!(
        fields.iter().all(|line| !line.starts_with(b" ") && !line.starts_with(b"\t")),
        "no line goes on with another"
    );
    let named = |wanted: &str| {
        let name = |line: &&[u8]| line.split(|byte| *byte == b':').next().unwrap_or_default().to_ascii_lowercase();
        let plain = |name: &Vec<u8>| name.iter().filter(|byte| byte.is_ascii_graphic()).eq(wanted.as_bytes());
        fields.iter().map(name).filter(plain).count()
    };
    let (lengths, codings) = (named("content-length"), named("transfer-encoding"));
    assert!(lengths + codings <= 1 && named("host") <= 1, "there is one way to say where a body ends");
    assert_eq!(chunked, codings == 1);
}

fn lines<'a>(bytes: &'a [u8], end: &[u8]) -> Vec<&'a [u8]> {
    let (mut lines, mut rest) = (Vec::new(), bytes);
    while let Some(at) = rest.windows(end.len()).position(|window| window == end) {
        lines.push(&rest[..at]);
        rest = &rest[at + end.len()..];
    }
    lines
}

fn check_chunks(data: &[u8], cut: usize) {
    let whole = raw::chunks(data, data.len());
    assert_eq!(raw::chunks(data, cut), whole, "it does not matter in which pieces it comes");
    if let Ok((length, true)) = whole {
        for end in [&b"\r\n"[..], b"\n"] {
            assert_eq!(end_of_chunks(data, end), Some(length), "a body ends where every program sees its end");
        }
    }
}

/// Where a body ends for a program that takes whatever stands before a `;` for a size, and this for the end of a line.
fn end_of_chunks(data: &[u8], end: &[u8]) -> Option<usize> {
    let line = |from: usize| Some(from + data[from..].windows(end.len()).position(|window| window == end)?);
    let mut at = 0;
    loop {
        let ends = line(at)?;
        let size = data[at..ends].split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let size = usize::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
        at = ends + end.len();
        if size == 0 {
            break;
        }
        at = at.checked_add(size)?;
        at = line(at).filter(|ends| data[at..*ends].trim_ascii().is_empty())? + end.len();
    }
    loop {
        let ends = line(at)?;
        let empty = data[at..ends].trim_ascii().is_empty();
        at = ends + end.len();
        if empty {
            return Some(at);
        }
    }
}

fn check_proxy_header(data: &[u8]) {
    let Ok((length, client)) = raw::proxy_header(data) else { return };
    assert!(length <= data.len() && length <= LONGEST_PROXY, "it is read to its end and no byte further");
    assert!(raw::proxy_header(&data[..length - 1]).is_err(), "it has one length");
    assert_eq!(raw::proxy_header(&data[..length]), Ok((length, client)), "what follows changes nothing");
    if let (Some(client), true) = (client, data.starts_with(b"PROXY ")) {
        let text = String::from_utf8_lossy(&data[..length]);
        let port = text.split(' ').nth(4).and_then(|port| port.parse().ok());
        assert_eq!(port, Some(client.port()), "the port is the client's");
    }
}
