//! Whether a server of this machine writes down its own calls.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;

/// The first argument of the child that a watched server writes to.
const RENDERER: &[u8] = b"render-events";

/// The process that listens at `addr` and is being watched. `None` as well
/// where /proc does not tell: it is another machine's or another user's.
pub(super) fn watched_server(addr: SocketAddr) -> Option<i32> {
    // Only an address of this machine can be bound.
    UdpSocket::bind((addr.ip(), 0)).ok()?;
    let wanted: Vec<String> = listening_at(addr)
        .iter()
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let processes = processes();
    let renders: Vec<i32> = processes
        .iter()
        .filter(|&&pid| is_renderer(pid))
        .filter_map(|&pid| parent_of(pid))
        .collect();
    processes
        .into_iter()
        .filter(|pid| renders.contains(pid))
        .find(|&pid| has_one_of(pid, &wanted))
}

fn processes() -> Vec<i32> {
    let names = fs::read_dir("/proc").into_iter().flatten().flatten();
    names.filter_map(|name| name.file_name().to_str()?.parse().ok()).collect()
}

fn is_renderer(pid: i32) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|&byte| byte == 0).any(|word| word == RENDERER)
}

fn parent_of(pid: i32) -> Option<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, parentheses included.
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

fn has_one_of(pid: i32, wanted: &[String]) -> bool {
    let fds = fs::read_dir(format!("/proc/{pid}/fd"));
    fds.into_iter().flatten().flatten().any(|fd| {
        let link = fs::read_link(fd.path()).unwrap_or_default();
        wanted.iter().any(|name| link == Path::new(name))
    })
}

/// The inodes of the sockets that listen at `addr`.
fn listening_at(addr: SocketAddr) -> Vec<String> {
    let parse = |line: &str| {
        // sl, local address, remote address, state, … (proc_net_tcp)
        let mut fields = line.split_ascii_whitespace();
        let (ip, port) = fields.nth(1)?.rsplit_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        let listens = fields.nth(1)? == "0A";
        let ip = ip_of(ip)?;
        let here = ip.is_unspecified() || ip.to_canonical() == addr.ip();
        let inode = fields.nth(5)?;
        (listens && here && port == addr.port()).then(|| inode.to_owned())
    };
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let texts = tables.map(|it| fs::read_to_string(it).unwrap_or_default());
    texts.iter().flat_map(|it| it.lines().skip(1)).filter_map(parse).collect()
}

/// An address as the kernel prints it: words of 32 bits, each a number in the
/// machine's order of bytes.
fn ip_of(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = text.get(8 * at..8 * at + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    if text.len() == 8 {
        return Some(Ipv4Addr::from(word(0)?).into());
    }
    let words = [word(0)?, word(1)?, word(2)?, word(3)?];
    let bytes: [u8; 16] = words.as_flattened().try_into().ok()?;
    Some(Ipv6Addr::from(bytes).into())
}
