//! What machine this is: what one would ask before one believes a figure.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use nix::sys::resource::{Resource, getrlimit};

use super::{cores, sys};
use crate::results::Machine;

/// With what can be told; the rest stays empty.
pub fn this_machine() -> Machine {
    let now = SystemTime::now();
    Machine {
        date: humantime::format_rfc3339_seconds(now).to_string(),
        commit: commit(),
        kernel: kernel(),
        cpu: cpu(),
        cores: cores::allowed().map_or(0, |cores| cores.len()),
        memory: memory(),
        limits: limits(),
        mitigations: mitigations(),
        versions: versions(),
        load_average: word("/proc/loadavg", 0)
            .and_then(|word| word.parse().ok())
            .unwrap_or(0.0),
    }
}

/// What the file holds, without the white space around it.
fn text(path: impl AsRef<Path>) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

fn word(path: &str, at: usize) -> Option<String> {
    text(path)?.split_whitespace().nth(at).map(str::to_owned)
}

fn commit() -> Option<String> {
    let mut git = Command::new("git");
    git.args(["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always"]);
    // No tag matches: only the commit is wanted.
    let output = git.args(["--dirty", "--exclude", "*"]).output().ok()?;
    let said = String::from_utf8(output.stdout).ok()?;
    let commit = said.trim();
    (output.status.success() && !commit.is_empty()).then(|| commit.to_owned())
}

fn kernel() -> String {
    let told = |name: &str| text(format!("/proc/sys/kernel/{name}"));
    let system = told("ostype").unwrap_or_else(|| "Linux".to_owned());
    let release = told("osrelease").unwrap_or_default();
    format!("{system} {release} {}", std::env::consts::ARCH)
}

fn cpu() -> String {
    let info = text("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        info.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == name).then(|| value.trim())
        })
    };
    let model = field("model name").unwrap_or("unknown");
    let flags = field("flags").unwrap_or_default();
    let guest = flags.split(' ').any(|flag| flag == "hypervisor");
    // Only some hypervisors tell their names.
    match (text("/sys/hypervisor/type"), guest) {
        (Some(name), _) => format!("{model}, under {name}"),
        (None, true) => format!("{model}, under a hypervisor"),
        (None, false) => model.to_owned(),
    }
}

fn memory() -> u64 {
    // MemTotal stands in the first line, in KiB.
    let total = word("/proc/meminfo", 1).and_then(|it| it.parse::<u64>().ok());
    total.unwrap_or(0) * 1024
}

fn limits() -> Vec<(String, String)> {
    let sysctl = |name: &str| {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        Some(text(path)?.split_whitespace().collect::<Vec<_>>().join("-"))
    };
    let descriptors = getrlimit(Resource::RLIMIT_NOFILE)
        .ok()
        .map(|(soft, hard)| format!("{soft} soft, {hard} hard"));
    let all = [
        ("descriptors", descriptors),
        ("pid_max", sysctl("kernel.pid_max")),
        ("threads-max", sysctl("kernel.threads-max")),
        ("cgroup pids.max", in_cgroup("pids", "pids.max", plain)),
        ("cgroup cpu.max", in_cgroup("cpu", "cpu.max", share)),
        ("net.core.somaxconn", sysctl("net.core.somaxconn")),
        ("tcp_max_tw_buckets", sysctl("net.ipv4.tcp_max_tw_buckets")),
        ("ephemeral ports", sysctl("net.ipv4.ip_local_port_range")),
        ("perf_event_paranoid", sysctl("kernel.perf_event_paranoid")),
    ];
    let told = |(name, value): (&str, Option<_>)| Some((name.into(), value?));
    all.into_iter().filter_map(told).collect()
}

/// How much a limit is, to find the tightest; `None` for `max`.
type Size = fn(&str) -> Option<f64>;

fn plain(limit: &str) -> Option<f64> {
    limit.parse().ok()
}

/// `cpu.max` is a quota and its period.
fn share(limit: &str) -> Option<f64> {
    let (quota, period) = limit.split_once(' ')?;
    Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
}

/// The tightest limit of this process's control group and of those above it
/// (cgroups(7)); `None` where none has the file.
fn in_cgroup(controller: &str, file: &str, size: Size) -> Option<String> {
    let groups = text("/proc/self/cgroup")?;
    let mut found: Option<String> = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (names, path) = (fields.next()?, fields.next()?);
        let root = match names {
            "" => PathBuf::from("/sys/fs/cgroup"),
            _ if names.split(',').any(|it| it == controller) => {
                Path::new("/sys/fs/cgroup").join(names)
            }
            _ => continue,
        };
        let group = root.join(path.trim_start_matches('/'));
        let above = group.ancestors().take_while(|it| it.starts_with(&root));
        for limit in above.filter_map(|group| text(group.join(file))) {
            let of = |limit: &str| size(limit).unwrap_or(f64::INFINITY);
            if found.as_deref().is_none_or(|old| of(&limit) < of(old)) {
                found = Some(limit);
            }
        }
    }
    found
}

fn mitigations() -> Vec<(String, String)> {
    let folder = "/sys/devices/system/cpu/vulnerabilities";
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut all: Vec<(String, String)> = files
        .filter_map(|file| {
            let name = file.file_name().into_string().ok()?;
            Some((name, text(file.path())?))
        })
        .filter(|(_, state)| state != "Not affected")
        .collect();
    all.sort();
    all
}

fn versions() -> Vec<(String, String)> {
    let lock = include_str!("../../../Cargo.lock");
    let all = [
        ("io-models", Some(env!("CARGO_PKG_VERSION").to_owned())),
        ("rustc", own_compiler()),
        ("glibc", Some(sys::glibc_version())),
        ("tokio", locked(lock, "tokio")),
        ("mio", locked(lock, "mio")),
    ];
    let told = |(name, value): (&str, Option<_>)| Some((name.into(), value?));
    all.into_iter().filter_map(told).collect()
}

/// The versions of a package in Cargo.lock.
fn locked(lock: &str, package: &str) -> Option<String> {
    let name = format!("name = \"{package}\"");
    let versions: Vec<&str> = lock
        .split("[[package]]")
        .filter(|block| block.lines().any(|line| line == name))
        .filter_map(|block| {
            let mut lines = block.lines();
            let line =
                lines.find_map(|line| line.strip_prefix("version = "))?;
            Some(line.trim_matches('"'))
        })
        .collect();
    (!versions.is_empty()).then(|| versions.join(", "))
}

/// The compiler that built this very program.
fn own_compiler() -> Option<String> {
    compiler_of(&File::open("/proc/self/exe").ok()?)
}

/// What rustc leaves in the section `.comment` (elf(5)) of a 64-bit program of
/// little end; `None` where that is not there, or names two of them.
fn compiler_of(program: &File) -> Option<String> {
    let bytes = |at: u64, count: usize| {
        let mut bytes = vec![0; count];
        program.read_exact_at(&mut bytes, at).ok()?;
        Some(bytes)
    };
    let header = bytes(0, 64)?;
    header.starts_with(b"\x7fELF\x02\x01").then_some(())?;
    let (size, count) = (short(&header, 0x3a)?, short(&header, 0x3c)?);
    let table = bytes(long(&header, 0x28)?, size * count)?;
    let sections: Vec<&[u8]> = table.chunks_exact(size.max(1)).collect();
    let content = |section: &[u8]| {
        let size = usize::try_from(long(section, 0x20)?).ok()?;
        // No such section is large; a wrong header may say so.
        (size < 1 << 20).then_some(())?;
        bytes(long(section, 0x18)?, size)
    };
    let names = content(sections.get(short(&header, 0x3e)?)?)?;
    let is_comment = |section: &&&[u8]| {
        let at = section.first_chunk().map(|it| u32::from_le_bytes(*it));
        let name = at.and_then(|at| names.get(at as usize..));
        name.is_some_and(|name| name.starts_with(b".comment\0"))
    };
    let comment = content(sections.iter().find(is_comment)?)?;
    let mut found = comment.split(|&byte| byte == 0).filter_map(|it| {
        str::from_utf8(it).ok()?.strip_prefix("rustc version ")
    });
    let first = found.next()?;
    found.all(|other| other == first).then(|| first.to_owned())
}

fn short(bytes: &[u8], at: usize) -> Option<usize> {
    let two = bytes.get(at..)?.first_chunk()?;
    Some(usize::from(u16::from_le_bytes(*two)))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    let eight = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_le_bytes(*eight))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_of_the_lock() {
        let lock = "[[package]]\nname = \"mio-extra\"\nversion = \"9\"\n\n\
                    [[package]]\nname = \"mio\"\nversion = \"1.2.3\"\n\n\
                    [[package]]\nname = \"mio\"\nversion = \"0.8.0\"\n";
        assert_eq!(locked(lock, "mio").as_deref(), Some("1.2.3, 0.8.0"));
        assert_eq!(locked(lock, "tokio"), None);
    }

    #[test]
    fn quotas_compare_by_their_share() {
        assert_eq!(share("max 100000"), None);
        assert!(share("50000 100000") < share("10000 10000"));
    }
}
