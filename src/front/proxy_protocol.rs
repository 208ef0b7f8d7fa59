//! Which client does a load balancer connect for?
//!
//! One that passes connections on as they are (AWS NLB, HAProxy in TCP mode) says it in a header of the PROXY protocol
//! before the client's first byte. Version 1 is a line of text, version 2 is binary:
//! <https://www.haproxy.org/download/3.1/doc/proxy-protocol.txt>.
//!
//! **Invariants**
//! - Exactly the header is read and no byte behind it, of which TLS is the judge.
//! - At most [`LONGEST`] bytes are read. A header that breaks a rule is [`Garbage`]: nothing is guessed.
//!
//! Absent on purpose: whether the header is believed ([`listener`](super::listener) asks before it reads one), and what
//! its extensions (TLVs) say, which are skipped.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use pingora::protocols::Stream;
use tokio::io::{AsyncRead, AsyncReadExt};

/// What version 2 begins with: no line of text, no TLS record, no request.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, version and command, family and protocol, and the length of the rest.
const FIXED: usize = 16;
/// What version 1 begins with: no method is called so.
const WORD: &[u8] = b"PROXY ";
/// The longest line of version 1, with its end (2.1).
const LINE: usize = 107;
/// The longest header: room for the client's certificate, which some proxies send along.
pub(super) const LONGEST: usize = 16 << 10;

/// What the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header {
    /// The connection is for this client.
    For(SocketAddr),
    /// The connection is the balancer's own, or of a kind that has no address: the socket's counts.
    Unnamed,
}

/// What came is no header of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a header of the PROXY protocol")]
pub(super) struct Garbage;

/// How far the bytes so far have got us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The header has at least so many bytes in all.
    Need(usize),
    /// They are the header.
    Done(Header),
}

/// Whether a header is what comes first. Nothing is taken from the stream.
pub(super) async fn announced(stream: &mut Stream) -> io::Result<bool> {
    let mut first = [0; SIGNATURE.len()];
    for length in 1..=SIGNATURE.len() {
        let seen = &mut first[..length];
        stream.try_peek(seen).await?;
        if *seen == *WORD || *seen == SIGNATURE {
            return Ok(true);
        }
        if !WORD.starts_with(seen) && !SIGNATURE.starts_with(seen) {
            return Ok(false);
        }
    }
    Ok(false)
}

/// Reads the header.
///
/// # Errors
/// The stream's own, and `InvalidData` for [`Garbage`].
pub(super) async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Header> {
    let mut bytes = Vec::with_capacity(LINE);
    loop {
        match step(&bytes).map_err(|garbage| io::Error::new(io::ErrorKind::InvalidData, garbage))? {
            Step::Done(header) => return Ok(header),
            Step::Need(length) => {
                let have = bytes.len();
                bytes.resize(length.max(have + 1), 0);
                stream.read_exact(&mut bytes[have..]).await?;
            }
        }
    }
}

fn step(bytes: &[u8]) -> Result<Step, Garbage> {
    if bytes.is_empty() {
        return Ok(Step::Need(1));
    }
    if bytes[0] == SIGNATURE[0] { binary(bytes) } else { line(bytes) }
}

/// Version 1: `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443`, its end a CRLF.
fn line(bytes: &[u8]) -> Result<Step, Garbage> {
    let begun = bytes.len().min(WORD.len());
    if bytes[..begun] != WORD[..begun] || bytes.len() > LINE {
        return Err(Garbage);
    }
    let Some(line) = bytes.strip_suffix(b"\r\n") else {
        // Whatever is known of the end: it is ahead, so one byte more can never be one too many.
        return if bytes.len() < LINE && !bytes.contains(&b'\n') {
            Ok(Step::Need(bytes.len() + 1))
        } else {
            Err(Garbage)
        };
    };
    let line = line.get(WORD.len()..).and_then(|rest| std::str::from_utf8(rest).ok()).ok_or(Garbage)?;
    let words: Vec<&str> = line.split(' ').collect();
    match words[..] {
        ["TCP4", from, to, from_port, to_port] => text::<Ipv4Addr>([from, to], [from_port, to_port]),
        ["TCP6", from, to, from_port, to_port] => text::<Ipv6Addr>([from, to], [from_port, to_port]),
        ["UNKNOWN", ..] => Ok(Step::Done(Header::Unnamed)), // whatever follows
        _ => Err(Garbage),
    }
}

fn text<A: FromStr + Into<IpAddr>>(addresses: [&str; 2], ports: [&str; 2]) -> Result<Step, Garbage> {
    let [Ok(from), Ok(_)] = addresses.map(str::parse::<A>) else { return Err(Garbage) };
    let [Some(port), Some(_)] = ports.map(port) else { return Err(Garbage) };
    Ok(Step::Done(Header::For(SocketAddr::new(from.into(), port))))
}

/// Decimal digits without a zero before them.
fn port(text: &str) -> Option<u16> {
    let port: u16 = text.parse().ok()?;
    (port.to_string() == text).then_some(port)
}

/// Version 2.
fn binary(bytes: &[u8]) -> Result<Step, Garbage> {
    let begun = bytes.len().min(SIGNATURE.len());
    if bytes[..begun] != SIGNATURE[..begun] {
        return Err(Garbage);
    }
    let &[version_and_command, kind, high, low] = bytes.get(SIGNATURE.len()..FIXED).unwrap_or_default() else {
        return Ok(Step::Need(FIXED));
    };
    let whole = FIXED + usize::from(u16::from_be_bytes([high, low]));
    let local = match version_and_command {
        0x20 => true,
        0x21 => false,
        _ => return Err(Garbage),
    };
    if whole > LONGEST {
        return Err(Garbage);
    }
    if bytes.len() < whole {
        return Ok(Step::Need(whole));
    }
    if local {
        return Ok(Step::Done(Header::Unnamed)); // "discard the protocol block including the family which is ignored"
    }
    Ok(Step::Done(addresses(kind, &bytes[FIXED..])?.map_or(Header::Unnamed, Header::For)))
}

/// The client's address and port of version 2, if it is of a kind that has them: source, destination, source port,
/// destination port, and behind that whatever extensions there are.
fn addresses(kind: u8, block: &[u8]) -> Result<Option<SocketAddr>, Garbage> {
    match kind {
        0x11 => {
            let (source, rest) = block.split_first_chunk::<4>().ok_or(Garbage)?;
            let &[_, _, _, _, high, low, _, _, ..] = rest else { return Err(Garbage) };
            Ok(Some((Ipv4Addr::from(*source), u16::from_be_bytes([high, low])).into()))
        }
        0x21 => {
            let (source, rest) = block.split_first_chunk::<16>().ok_or(Garbage)?;
            let (_, ports) = rest.split_first_chunk::<16>().ok_or(Garbage)?;
            let &[high, low, _, _, ..] = ports else { return Err(Garbage) };
            Ok(Some((Ipv6Addr::from(*source), u16::from_be_bytes([high, low])).into()))
        }
        // Datagrams, sockets in a file system, and no address at all.
        0x00 | 0x12 | 0x22 | 0x31 | 0x32 => Ok(None),
        _ => Err(Garbage),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is read of these bytes, and what is left behind it.
    fn taken(bytes: &[u8]) -> io::Result<(Header, Vec<u8>)> {
        let mut rest = bytes;
        let header = futures_util::FutureExt::now_or_never(read(&mut rest)).unwrap()?;
        Ok((header, rest.to_vec()))
    }

    fn garbage(bytes: &[u8]) -> bool {
        taken(bytes).is_err_and(|error| error.kind() == io::ErrorKind::InvalidData)
    }

    fn version_1(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
        let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
        format!("PROXY {family} {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port()).into_bytes()
    }

    fn version_2(command: u8, kind: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[0x20 | command, kind], &length, block].concat()
    }

    fn block(from: SocketAddr, to: SocketAddr, extensions: &[u8]) -> (u8, Vec<u8>) {
        let octets = |ip| match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let ports = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
        let kind = if from.is_ipv4() { 0x11 } else { 0x21 };
        (kind, [octets(from.ip()), octets(to.ip()), ports, extensions.to_vec()].concat())
    }

    const FROM: &str = "192.0.2.1:56324";
    const TO: &str = "198.51.100.1:443";

    #[test]
    fn the_balancers_own_connections_have_no_client() {
        let (kind, addresses) = block(FROM.parse().unwrap(), TO.parse().unwrap(), &[]);
        for own in [
            b"PROXY UNKNOWN\r\n".to_vec(),
            b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n".to_vec(),
            version_2(0, 0, &[]),
            version_2(0, kind, &addresses),
            version_2(1, 0, &[]),
            version_2(1, 0x31, &[b'/'; 216]),
        ] {
            assert_eq!(taken(&own).unwrap(), (Header::Unnamed, Vec::new()), "{own:?}");
        }
    }

    #[test]
    fn what_breaks_a_rule_is_garbage() {
        for line in [
            "GET / HTTP/1.1\r\n",
            "PROXY\r\n",
            "PROXY \r\n",
            "PROXY TCP4\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 1\r\n",
            "PROXY TCP4  192.0.2.1 198.51.100.1 56324 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 056324 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 +56324 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 65536 443\r\n",
            "PROXY TCP4 2001:db8::1 2001:db8::2 56324 443\r\n",
            "PROXY TCP6 192.0.2.1 198.51.100.1 56324 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\n",
            "PROXY UDP4 192.0.2.1 198.51.100.1 56324 443\r\n",
            "proxy TCP4 192.0.2.1 198.51.100.1 56324 443\r\n",
            &format!("PROXY UNKNOWN {}\r\n", "x".repeat(LINE)),
        ] {
            assert!(garbage(line.as_bytes()), "{line}");
        }
        let (kind, addresses) = block(FROM.parse().unwrap(), TO.parse().unwrap(), &[]);
        let good = version_2(1, kind, &addresses);
        for (at, byte) in [(0, b'\n'), (11, 0), (12, 0x11), (12, 0x22), (13, 0x13), (13, 0x41), (15, 11)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert!(garbage(&bad), "{at} {byte}");
        }
        let mut long = good;
        long[14] = 0xff;
        assert!(garbage(&long), "longer than anybody needs");
    }

    fn sockets() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
        prop_oneof![
            any::<(Ipv4Addr, u16, Ipv4Addr, u16)>().prop_map(|(a, b, c, d)| ((a, b).into(), (c, d).into())),
            any::<(Ipv6Addr, u16, Ipv6Addr, u16)>().prop_map(|(a, b, c, d)| ((a, b).into(), (c, d).into())),
        ]
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read_and_not_a_byte_more(
            (from, to) in sockets(),
            extensions in prop::collection::vec(any::<u8>(), 0..600),
            rest in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let (kind, block) = block(from, to, &extensions);
            for header in [version_1(from, to), version_2(1, kind, &block)] {
                let (read, left) = taken(&[header.clone(), rest.clone()].concat()).unwrap();
                prop_assert_eq!(read, Header::For(from));
                prop_assert_eq!(&left, &rest);
                let cut = taken(&header[..header.len() - 1]).unwrap_err();
                prop_assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
            }
        }

        #[test]
        fn no_bytes_make_the_reader_panic_or_read_without_end(
            start in 0..4usize, bytes in prop::collection::vec(any::<u8>(), 0..400),
        ) {
            let start: &[u8] = [&b""[..], WORD, &SIGNATURE, b"PROXY TCP4 "][start];
            let bytes = [start, &bytes].concat();
            if let Ok((_, left)) = taken(&bytes) {
                prop_assert!(bytes.len() - left.len() <= LONGEST);
            }
        }

        #[test]
        fn a_flipped_bit_never_costs_more_than_the_connection((from, to) in sockets(), at in 0..28usize, bit in 0..8u8) {
            let (kind, block) = block(from, to, &[0xea; 20]);
            let mut header = version_2(1, kind, &block);
            header[at] ^= 1 << bit;
            let _ = taken(&header); // whatever comes of it, it comes to an end
        }
    }
}
