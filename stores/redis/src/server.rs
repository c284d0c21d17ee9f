//! The requirements on the server, its health details, and its errors.

use redis::{ErrorKind, InfoDict, RedisError, ServerErrorKind};
use votes::{ConnectError, HealthDetails};

/// The oldest version of Redis that is accepted: major and minor number.
const MIN_VERSION: (u32, u32) = (6, 2);

/// Returns why this server can't store tallies, and what to change. Returns `None` if it can.
pub(super) fn refusal(info: &InfoDict) -> Option<String> {
    let version = text(info, "redis_version");
    if major_minor(&version) < MIN_VERSION {
        return Some(format!("Redis {version} is too old; use Redis 6.2 or newer, or Valkey"));
    }
    let policy = text(info, "maxmemory_policy");
    (policy != "noeviction").then(|| {
        format!(
            "its maxmemory-policy is {policy:?}, so it may evict counts; set it to noeviction, in redis.conf or with \
             CONFIG SET maxmemory-policy noeviction"
        )
    })
}

/// Returns the server's version and the settings that the safety of the counts depends on.
pub(super) fn details(info: &InfoDict) -> HealthDetails {
    let version = match info.get::<String>("valkey_version") {
        Some(version) => format!("Valkey {version}"),
        None => format!("Redis {}", text(info, "redis_version")),
    };
    let is_persistent = text(info, "aof_enabled") == "1";
    let mut details = HealthDetails::from([
        ("version", version),
        ("maxmemory_policy", text(info, "maxmemory_policy")),
        ("persistence", if is_persistent { "appendonly" } else { "no appendonly" }.to_owned()),
    ]);
    if let Some(ratio) = memory_used_ratio(info) {
        details.insert("memory_used_ratio", format!("{ratio:.3}"));
    }
    details
}

/// Returns how full the server's memory is: its used memory by its `maxmemory`. Returns `None` if it has no limit.
pub(super) fn memory_used_ratio(info: &InfoDict) -> Option<f64> {
    let (used, max) = (info.get::<f64>("used_memory")?, info.get::<f64>("maxmemory")?);
    (max > 0.0).then(|| used / max)
}

/// Returns why a server can't be used, in most cases with what to do, and whether a retry may help.
pub(super) fn connect_error(server: &str, error: &RedisError) -> ConnectError {
    let unreachable = |problem: &str| ConnectError::Unreachable(format!("{server}: {problem}"));
    let refused = |problem: &str| ConnectError::Refused(format!("{server}: {problem}"));
    match (error.kind(), error.code().unwrap_or_default()) {
        (ErrorKind::Io, _) => ConnectError::untrusted(&format!("{server}: {error}"), "tlsCAFile")
            .unwrap_or_else(|| unreachable(&error.to_string())),
        (ErrorKind::AuthenticationFailed, _) => refused(&format!("it does not accept this user or password ({error})")),
        (_, "NOAUTH") => refused("it requires a password: give redis://:PASSWORD@HOST"),
        (ErrorKind::Server(ServerErrorKind::NoPerm), _) => {
            refused(&format!("the user lacks a permission; allow it all commands on the keys of its prefix ({error})"))
        }
        (ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::CrossSlot), _) => refused(
            "it is a node of a cluster and does not serve these keys. All keys are in one slot, so a cluster adds \
             nothing: give a server that is not in cluster mode",
        ),
        (ErrorKind::Server(ServerErrorKind::ReadOnly), _) => {
            unreachable("it is a read-only replica; give the URL of its master")
        }
        (ErrorKind::Server(ServerErrorKind::BusyLoading), _) => unreachable("it is still loading its data"),
        (_, "MISCONF") => unreachable(&format!("it accepts no writes, because it can't save them ({error})")),
        (_, "OOM") => unreachable("its memory is full; raise its maxmemory"),
        (ErrorKind::Server(ServerErrorKind::ResponseError), _) => refused(&error.to_string()),
        _ => unreachable(&error.to_string()),
    }
}

fn text(info: &InfoDict, key: &str) -> String {
    info.get(key).unwrap_or_else(|| "unknown".to_owned())
}

/// Parses the major and the minor number of a version. A missing or invalid number becomes 0.
fn major_minor(version: &str) -> (u32, u32) {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal_of(info: &str) -> Option<String> {
        refusal(&InfoDict::new(info))
    }

    #[test]
    fn the_used_memory_is_a_ratio_of_the_limit_if_there_is_one() {
        let ratio = |info: &str| details(&InfoDict::new(info)).get("memory_used_ratio").cloned();
        assert_eq!(ratio("used_memory:1500000\r\nmaxmemory:2000000\r\n").as_deref(), Some("0.750"));
        assert_eq!(ratio("used_memory:2100000\r\nmaxmemory:2000000\r\n").as_deref(), Some("1.050"));
        assert_eq!(ratio("used_memory:1500000\r\nmaxmemory:0\r\n"), None);
        assert_eq!(ratio("redis_version:7.0.15\r\n"), None);
    }

    #[test]
    fn a_server_that_may_evict_or_is_too_old_is_refused() {
        assert_eq!(refusal_of("redis_version:7.0.15\r\nmaxmemory_policy:noeviction\r\n"), None);
        assert_eq!(refusal_of("redis_version:10.0.0\r\nmaxmemory_policy:noeviction\r\n"), None);
        assert!(refusal_of("redis_version:6.0.16\r\nmaxmemory_policy:noeviction\r\n").unwrap().contains("too old"));
        let evicts = refusal_of("redis_version:7.0.15\r\nmaxmemory_policy:allkeys-lru\r\n").unwrap();
        assert!(evicts.contains("allkeys-lru") && evicts.contains("set it to noeviction"), "{evicts}");
        assert!(refusal_of("redis_version:7.0.15\r\n").unwrap().contains("unknown"));
    }
}
