//! The TCP sockets at a port, as the kernel sees them: sock_diag(7) tells of
//! one port, and where it is forbidden /proc tells of all.

use std::fs;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Result, bail, ensure};
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{
    ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags,
};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send,
    socket,
};

/// The kernel's number of a TCP state (include/net/tcp_states.h).
pub const ESTABLISHED: u8 = 1;
/// The server closed first, and waits for stray segments.
pub const TIME_WAIT: u8 = 6;
/// The client closed, and the server has not.
pub const CLOSE_WAIT: u8 = 8;
/// A listener.
pub const LISTEN: u8 = 10;

/// One socket of the server's port, as the kernel sees it (sock_diag(7)).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Socket {
    /// The kernel's number of its state, such as [`ESTABLISHED`].
    pub state: u8,
    /// Its own port.
    pub local_port: u16,
    /// The port of the other side; 0 for a listener.
    pub peer: u16,
    /// As in the name of its descriptor, `socket:[INODE]`; 0 while nobody has
    /// a descriptor of it.
    pub inode: u32,
    /// Bytes received and not yet read, and one more for the FIN; of a
    /// listener, clients in the accept queue.
    pub receive_queue: u32,
    /// Bytes sent and not yet acknowledged, and one more for the FIN; of a
    /// listener, how many the accept queue may hold, or 0 where only /proc
    /// could be asked, which does not tell.
    pub send_queue: u32,
}

/// All sockets whose local port it is: given the server's port, the server's
/// side of its connections; given a client's, the client's side, and whatever
/// else that port is used for at other peers.
pub fn sockets_at(port: u16) -> Vec<Socket> {
    find(Ports { local: port, ..ANY }, &StateFlags::all())
}

/// All sockets of this machine that are connected to this port: given the
/// server's, the clients' side of all of them for the price of one.
pub fn sockets_to(port: u16) -> Vec<Socket> {
    find(Ports { peer: port, ..ANY }, &StateFlags::all())
}

/// How many sockets of the server at this address are in this state.
pub fn sockets_of(server: SocketAddr, state: u8) -> usize {
    let ports = Ports { local: server.port(), ..ANY };
    let states = StateFlags::from_bits_truncate(1 << state);
    let families = match server.is_ipv4() {
        true => &BOTH[..1],
        false => &BOTH,
    };
    let found = by_netlink(families, ports, &states);
    found.unwrap_or_else(|_| by_proc(ports, &states)).len()
}

/// Whether the kernel keeps no more sockets in TIME_WAIT, or nearly: those that
/// come now are closed at once (tcp(7), tcp_max_tw_buckets).
pub(crate) fn time_wait_is_full() -> bool {
    let now = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let now = now.split_whitespace().skip_while(|word| *word != "tw");
    let most = fs::read_to_string("/proc/sys/net/ipv4/tcp_max_tw_buckets");
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let now = now.skip(1).find_map(number);
    let most = most.ok().and_then(|text| number(&text));
    // Some may have gone since.
    now.zip(most).is_some_and(|(now, most)| now >= most / 10 * 9)
}

/// The one connection between these addresses, as the first has it: the kernel
/// finds it at once. If it is not at these very addresses, or /proc has to be
/// read, it is the one between their ports.
pub fn socket_between(local: SocketAddr, peer: SocketAddr) -> Option<Socket> {
    if let Ok(Some(socket)) = one_by_netlink(local, peer) {
        return Some(socket);
    }
    let ports = Ports { local: local.port(), peer: peer.port() };
    find(ports, &StateFlags::all()).pop()
}

/// How many bytes the server has not read of what the client at `peer` has
/// sent and the kernel has taken for it.
pub fn unread_by_server(server: SocketAddr, peer: SocketAddr) -> u64 {
    let own = socket_between(server, peer);
    own.map_or(0, |socket| socket.receive_queue.into())
}

/// Which sockets are asked for; a port of 0 stands for all ports.
#[derive(Clone, Copy)]
struct Ports {
    local: u16,
    peer: u16,
}

const ANY: Ports = Ports { local: 0, peer: 0 };

/// A server at an IPv6 address may have clients of both families there. For
/// each the kernel looks through all sockets of the machine.
const BOTH: [u8; 2] = [AF_INET, AF_INET6];

fn find(ports: Ports, states: &StateFlags) -> Vec<Socket> {
    let found = by_netlink(&BOTH, ports, states);
    found.unwrap_or_else(|_| by_proc(ports, states))
}

fn by_netlink(
    families: &[u8],
    ports: Ports,
    states: &StateFlags,
) -> Result<Vec<Socket>> {
    let kernel = open()?;
    let mut found = Vec::new();
    for &family in families {
        let request = request(family, ports, states);
        send(kernel.as_raw_fd(), &request, MsgFlags::empty())?;
        while read_answers(&kernel, &mut found)? {}
    }
    Ok(found)
}

fn one_by_netlink(
    local: SocketAddr,
    peer: SocketAddr,
) -> Result<Option<Socket>> {
    let kernel = open()?;
    let family = if local.is_ipv4() { AF_INET } else { AF_INET6 };
    let id = SocketId {
        source_port: local.port(),
        destination_port: peer.port(),
        source_address: local.ip(),
        destination_address: peer.ip(),
        interface_id: 0,
        // Whichever: INET_DIAG_NOCOOKIE.
        cookie: [0xff; 8],
    };
    let all = StateFlags::all();
    let request = message(NLM_F_REQUEST, family, id, &all);
    send(kernel.as_raw_fd(), &request, MsgFlags::empty())?;
    let mut found = Vec::new();
    read_answers(&kernel, &mut found)?;
    // Where it is not, the kernel takes the listener for it.
    found.retain(|socket| socket.peer == peer.port());
    Ok(found.pop())
}

fn open() -> nix::Result<OwnedFd> {
    let protocol = SockProtocol::NetlinkSockDiag;
    let flags = SockFlag::SOCK_CLOEXEC;
    socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)
}

fn request(family: u8, ports: Ports, states: &StateFlags) -> Vec<u8> {
    // Of the addresses a dump takes no notice.
    let socket_id = SocketId {
        source_port: ports.local,
        destination_port: ports.peer,
        ..SocketId::new_v4()
    };
    message(NLM_F_REQUEST | NLM_F_DUMP, family, socket_id, states)
}

fn message(
    flags: u16,
    family: u8,
    socket_id: SocketId,
    states: &StateFlags,
) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let request = SockDiagMessage::InetRequest(InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: states.clone(),
        socket_id,
    });
    let mut message = NetlinkMessage::new(header, request.into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// Takes one datagram of answers; false after the last one.
fn read_answers(kernel: &OwnedFd, found: &mut Vec<Socket>) -> Result<bool> {
    // netlink(7): a message is cut where the buffer ends; the kernel never
    // fills more than this.
    let mut buffer = [0; 32 << 10];
    let length = recv(kernel.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    let mut rest = &buffer[..length];
    while !rest.is_empty() {
        let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest)?;
        match message.payload {
            NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(it)) => {
                found.push(Socket::from(&it.header));
            }
            NetlinkPayload::Done(done) => {
                ensure!(done.code == 0, "sock_diag ends with {}", done.code);
                return Ok(false);
            }
            other => bail!("sock_diag answers {other:?}"),
        }
        // Messages begin at multiples of four.
        let next = (message.header.length as usize).next_multiple_of(4);
        rest = rest.get(next..).unwrap_or_default();
    }
    Ok(true)
}

impl From<&InetResponseHeader> for Socket {
    fn from(seen: &InetResponseHeader) -> Socket {
        Socket {
            state: seen.state,
            local_port: seen.socket_id.source_port,
            peer: seen.socket_id.destination_port,
            inode: seen.inode,
            receive_queue: seen.recv_queue,
            send_queue: seen.send_queue,
        }
    }
}

fn by_proc(ports: Ports, states: &StateFlags) -> Vec<Socket> {
    let one_of = |wanted, port| wanted == 0 || wanted == port;
    // There may be tens of thousands of other lines (TIME_WAIT): most are
    // passed over by one search.
    let mark = format!(":{:04X} ", ports.local.max(ports.peer));
    let mut found = Vec::new();
    for path in ["/proc/net/tcp", "/proc/net/tcp6"] {
        // Without IPv6 the second is not there.
        let text = fs::read_to_string(path).unwrap_or_default();
        let lines = text.lines().filter(|line| line.contains(&mark));
        found.extend(lines.filter_map(parse));
    }
    found.retain(|socket| {
        let state = StateFlags::from_bits_truncate(1 << socket.state);
        states.contains(state)
            && one_of(ports.local, socket.local_port)
            && one_of(ports.peer, socket.peer)
    });
    found
}

/// One line of /proc/net/tcp.
fn parse(line: &str) -> Option<Socket> {
    // sl, local address, remote address, state, tx_queue:rx_queue, four that
    // are not looked at, inode, …
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let port = |at: usize| {
        let (_, port) = fields.get(at)?.rsplit_once(':')?;
        u16::from_str_radix(port, 16).ok()
    };
    let (sent, received) = fields.get(4)?.split_once(':')?;
    Some(Socket {
        state: u8::from_str_radix(fields[3], 16).ok()?,
        local_port: port(1)?,
        peer: port(2)?,
        inode: fields.get(9)?.parse().ok()?,
        receive_queue: u32::from_str_radix(received, 16).ok()?,
        send_queue: u32::from_str_radix(sent, 16).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read as _, Write as _};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::thread;
    use std::time::{Duration, Instant};

    use nix::sys::socket::{Backlog, listen};
    use nix::sys::stat::fstat;

    use super::*;

    /// What both ways find, once that is what is expected.
    fn both_find(
        ports: Ports,
        what: &str,
        expected: impl Fn(&[Socket]) -> bool,
    ) -> Vec<Socket> {
        let all = StateFlags::all();
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let mut asked = by_netlink(&BOTH, ports, &all).expect("sock_diag");
            let mut read = by_proc(ports, &all);
            asked.sort();
            read.sort();
            // What /proc does not tell.
            let mut told = asked.clone();
            for socket in told.iter_mut().filter(|it| it.state == LISTEN) {
                socket.send_queue = 0;
            }
            if told == read && expected(&asked) {
                return asked;
            }
            let seen = format!("{asked:#?} and {read:#?}");
            assert!(Instant::now() < deadline, "{what}: {seen}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn at(local: u16) -> Ports {
        Ports { local, ..ANY }
    }

    /// The one in this state and with this peer: what else there may be is
    /// left of others, who had the same port before.
    fn one(state: u8, peer: u16, sockets: &[Socket]) -> Option<Socket> {
        let mut these = sockets
            .iter()
            .filter(|socket| socket.state == state && socket.peer == peer);
        let one = these.next().cloned();
        these.next().is_none().then_some(one)?
    }

    fn port_of(client: &TcpStream) -> u16 {
        client.local_addr().unwrap().port()
    }

    fn inode_of(socket: &impl std::os::fd::AsFd) -> u64 {
        fstat(socket.as_fd()).unwrap().st_ino
    }

    /// A listener whose clients nobody has accepted, at `address`.
    fn queued(address: &str, count: usize) -> (TcpListener, Vec<TcpStream>) {
        let listener = TcpListener::bind(address).unwrap();
        listen(&listener, Backlog::new(5).unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let connect = |_| TcpStream::connect((Ipv4Addr::LOCALHOST, port));
        let clients = (0..count).map(connect).collect::<Result<_, _>>();
        (listener, clients.unwrap())
    }

    /// Where the sockets are listed that serve both families.
    const ADDRESSES: [&str; 2] = ["127.0.0.1:0", "[::]:0"];

    fn for_each_family(test: impl Fn(&str)) {
        if let Err(errno) = open() {
            println!("SKIPPED: sock_diag(7) is not there: {errno}");
            return;
        }
        test(ADDRESSES[0]);
        match super::super::has_ipv6() {
            true => test(ADDRESSES[1]),
            false => println!("SKIPPED: ::1 is not there"),
        }
    }

    #[test]
    fn both_ways_find_who_waits_to_be_accepted() {
        for_each_family(|address| {
            let (listener, clients) = queued(address, 3);
            let here = listener.local_addr().unwrap();
            let port = here.port();
            let own = both_find(at(port), "three in the queue", |seen| {
                one(LISTEN, 0, seen).is_some_and(|it| it.receive_queue == 3)
            });
            let at_rest = one(LISTEN, 0, &own).unwrap();
            assert_eq!(at_rest.local_port, port);
            assert_eq!(u64::from(at_rest.inode), inode_of(&listener));
            assert_eq!(at_rest.send_queue, 5);
            assert_eq!(sockets_of(here, LISTEN), 1);
            assert_eq!(sockets_of(here, ESTABLISHED), 3);
            let to_it = Ports { peer: port, ..ANY };
            let theirs = both_find(to_it, "their side", |_| true);
            for client in &clients {
                let peer = port_of(client);
                let queued = one(ESTABLISHED, peer, &own).unwrap();
                assert_eq!((queued.local_port, queued.inode), (port, 0));
                let other = one(ESTABLISHED, port, &sockets_at(peer)).unwrap();
                assert_eq!(other.local_port, peer);
                assert_eq!(u64::from(other.inode), inode_of(client));
                assert!(theirs.contains(&other), "{other:?} in {theirs:?}");
                assert!(sockets_to(port).contains(&other));
            }
        });
    }

    #[test]
    fn both_ways_find_what_is_not_read() {
        for_each_family(|address| {
            let (listener, mut clients) = queued(address, 1);
            let port = listener.local_addr().unwrap().port();
            let (server, _) = listener.accept().unwrap();
            let (mut client, mut sent) = (clients.remove(0), 0);
            let peer = port_of(&client);
            client.set_nonblocking(true).unwrap();
            loop {
                match client.write(&[0; 64 << 10]) {
                    Ok(count) => sent += count as u32,
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::WouldBlock);
                        break;
                    }
                }
            }
            let pair = Ports { local: peer, peer: port };
            // What is not yet acknowledged is on both sides.
            let own = both_find(at(port), "all of it, once", |seen| {
                let left = both_find(pair, "the client's side", |_| true);
                let left = one(ESTABLISHED, port, &left).unwrap().send_queue;
                let own = one(ESTABLISHED, peer, seen).unwrap();
                own.receive_queue + left == sent
            });
            let own = one(ESTABLISHED, peer, &own).unwrap();
            assert!(own.receive_queue > 0 && own.receive_queue < sent);
            assert_eq!(own.send_queue, 0);
            assert_eq!(u64::from(own.inode), inode_of(&server));
            // By its address, and where only the ports are known.
            let addr = client.local_addr().unwrap();
            let there = client.peer_addr().unwrap();
            let found = one_by_netlink(there, addr).expect("sock_diag");
            assert_eq!(found, Some(own.clone()));
            let unread = u64::from(own.receive_queue);
            assert_eq!(unread_by_server(there, addr), unread);
            let any = listener.local_addr().unwrap();
            assert_eq!(unread_by_server(any, addr), unread);
            // Nobody is there, though somebody listens.
            let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
            let found = one_by_netlink(there, nobody);
            assert!(!matches!(found, Ok(Some(_))), "{found:?}");
        });
    }

    #[test]
    fn both_ways_find_what_is_left_of_a_connection() {
        for_each_family(|address| {
            let (listener, mut clients) = queued(address, 2);
            let here = listener.local_addr().unwrap();
            let port = here.port();
            let [first, second] = [0, 1].map(|at| port_of(&clients[at]));
            let (closed, _) = listener.accept().unwrap();
            let _open = listener.accept().unwrap();
            // The first is closed by the server, the second by its client.
            drop(closed);
            assert_eq!(clients[0].read(&mut [0]).unwrap(), 0);
            clients.clear();
            let own = both_find(at(port), "a FIN of each side", |seen| {
                one(TIME_WAIT, first, seen).is_some()
                    && one(CLOSE_WAIT, second, seen).is_some()
            });
            assert_eq!(one(TIME_WAIT, first, &own).unwrap().inode, 0);
            let left = one(CLOSE_WAIT, second, &own).unwrap();
            // The FIN that nobody has read.
            assert_eq!(left.receive_queue, 1);
            assert!(sockets_of(here, TIME_WAIT) > 0);
            assert_eq!(sockets_of(here, CLOSE_WAIT), 1);
        });
    }
}
