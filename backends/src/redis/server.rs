//! What the server has to be, and what it says of itself.

use redis::{ErrorKind, InfoDict, RedisError, ServerErrorKind};
use votes::Facts;

use crate::open::NotOpen;

/// The oldest version that is tried.
const OLDEST: (u32, u32) = (6, 2);

/// Why a server can't hold tallies, and what would be right.
pub(super) fn refusal(info: &InfoDict) -> Option<String> {
    let version = text(info, "redis_version");
    if number(&version) < OLDEST {
        return Some(format!("Redis {version} is too old; it takes Redis 6.2, or Valkey, or later"));
    }
    let policy = text(info, "maxmemory_policy");
    (policy != "noeviction").then(|| {
        format!(
            "its maxmemory-policy is {policy:?}, under which it may throw away counts; set it to noeviction, in \
             redis.conf or with CONFIG SET maxmemory-policy noeviction"
        )
    })
}

/// What people want to check.
pub(super) fn facts(info: &InfoDict) -> Facts {
    let version = match info.get::<String>("valkey_version") {
        Some(version) => format!("Valkey {version}"),
        None => format!("Redis {}", text(info, "redis_version")),
    };
    let is_kept = text(info, "aof_enabled") == "1";
    Facts::from([
        ("version", version),
        ("maxmemory_policy", text(info, "maxmemory_policy")),
        ("persistence", if is_kept { "appendonly" } else { "no appendonly" }.to_owned()),
    ])
}

/// A server that did not answer as it should: whether it may soon, and what to do.
pub(super) fn not_open(server: &str, error: &RedisError) -> NotOpen {
    let soon = |problem: &str| NotOpen::Unreachable(format!("{server}: {problem}"));
    let never = |problem: &str| NotOpen::Refused(format!("{server}: {problem}"));
    match (error.kind(), error.code().unwrap_or_default()) {
        (ErrorKind::Io, _) => {
            NotOpen::untrusted(&format!("{server}: {error}"), "tlsCAFile").unwrap_or_else(|| soon(&error.to_string()))
        }
        (ErrorKind::AuthenticationFailed, _) => never(&format!("it does not know this user or password ({error})")),
        (_, "NOAUTH") => never("it wants a password: give redis://:PASSWORD@HOST"),
        (ErrorKind::Server(ServerErrorKind::NoPerm), _) => {
            never(&format!("the user lacks a permission; let it use all commands on the keys of its prefix ({error})"))
        }
        (ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::CrossSlot), _) => never(
            "it is a node of a cluster that does not serve these keys. They are all in one slot, so that a cluster adds \
             nothing: give a server that is not in cluster mode",
        ),
        (ErrorKind::Server(ServerErrorKind::ReadOnly), _) => {
            soon("it is a read-only replica; give the URL of its master")
        }
        (ErrorKind::Server(ServerErrorKind::BusyLoading), _) => soon("it is still loading its data"),
        (_, "MISCONF") => soon(&format!("it takes no writes, since it can't save them ({error})")),
        (_, "OOM") => soon("its memory is full; raise its maxmemory"),
        (ErrorKind::Server(ServerErrorKind::ResponseError), _) => never(&error.to_string()),
        _ => soon(&error.to_string()),
    }
}

fn text(info: &InfoDict, key: &str) -> String {
    info.get(key).unwrap_or_else(|| "unknown".to_owned())
}

/// Major and minor version; 0 for what is no number.
fn number(version: &str) -> (u32, u32) {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(info: &str) -> Option<String> {
        refusal(&InfoDict::new(info))
    }

    #[test]
    fn a_server_that_may_evict_or_is_too_old_is_refused() {
        assert_eq!(refused("redis_version:7.0.15\r\nmaxmemory_policy:noeviction\r\n"), None);
        assert_eq!(refused("redis_version:10.0.0\r\nmaxmemory_policy:noeviction\r\n"), None);
        assert!(refused("redis_version:6.0.16\r\nmaxmemory_policy:noeviction\r\n").unwrap().contains("too old"));
        let evicts = refused("redis_version:7.0.15\r\nmaxmemory_policy:allkeys-lru\r\n").unwrap();
        assert!(evicts.contains("allkeys-lru") && evicts.contains("set it to noeviction"), "{evicts}");
        assert!(refused("redis_version:7.0.15\r\n").unwrap().contains("unknown"));
    }
}
