//! Parses a URL: the server, its TLS certificates, and the prefix of the keys.

use std::fs;

use redis::{ClientTlsConfig, ConnectionInfo, IntoConnectionInfo, TlsCertificates, parse_redis_url};

/// The prefix of the keys if the URL names none.
const DEFAULT_PREFIX: &str = "ovation";

/// The maximum length of a prefix, in bytes.
const MAX_PREFIX: usize = 64;

/// The form of a URL, for error messages.
const URL_FORM: &str = "give redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE][?prefix=NAME], or rediss://... with TLS";

/// The server and the prefix that a URL names.
#[derive(Debug)]
pub(super) struct Address {
    pub(super) server: ConnectionInfo,
    /// The certificates, if the URL begins with `rediss://`.
    pub(super) tls: Option<TlsCertificates>,
    pub(super) prefix: String,
}

impl Address {
    /// Parses a URL.
    ///
    /// # Errors
    /// Returns what is wrong, and in most cases what is valid. The message never contains the password.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let mut url =
            parse_redis_url(url).ok_or_else(|| format!("this is not the URL of a Redis server; {URL_FORM}"))?;
        if url.fragment().is_some() {
            return Err(format!("the URL must not have a #: certificates are always checked; {URL_FORM}"));
        }
        let has_tls = url.scheme() == "rediss";
        let mut tls = TlsCertificates { client_tls: None, root_cert: None };
        let (mut prefix, mut driver_options) = (DEFAULT_PREFIX.to_owned(), Vec::new());
        for (key, value) in url.query_pairs() {
            match key.as_ref() {
                "prefix" => prefix = validate_prefix(&value)?,
                "protocol" => driver_options.push(format!("protocol={value}")),
                "tlsCAFile" if has_tls => tls.root_cert = Some(read_pem(&key, &value)?),
                "tlsCertificateKeyFile" if has_tls => {
                    let pem = read_pem(&key, &value)?;
                    tls.client_tls = Some(ClientTlsConfig { client_cert: pem.clone(), client_key: pem });
                }
                "tlsCAFile" | "tlsCertificateKeyFile" => return Err(format!("{key} needs TLS: give rediss://...")),
                _ => {
                    return Err(format!(
                        "{key:?} is not an option of this URL; the options are `prefix` and `protocol`, and with rediss:// \
                         also `tlsCAFile` and `tlsCertificateKeyFile`"
                    ));
                }
            }
        }
        url.set_query((!driver_options.is_empty()).then(|| driver_options.join("&")).as_deref());
        let server = url.into_connection_info().map_err(|error| format!("{error}; {URL_FORM}"))?;
        let tcp = server.tcp_settings().clone().set_nodelay(true);
        Ok(Self { server: server.set_tcp_settings(tcp), tls: has_tls.then_some(tls), prefix })
    }
}

/// Reads the file of certificates or keys that an option names.
fn read_pem(key: &str, path: &str) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{key}: {path}: {error}"))
}

/// Returns the prefix if it is valid. The prefix is a hash tag of Redis Cluster, and operators type it in shells and
/// patterns, so it must not contain a character with a special meaning there.
fn validate_prefix(prefix: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if (1..=MAX_PREFIX).contains(&prefix.len()) && prefix.bytes().all(is_plain) {
        Ok(prefix.to_owned())
    } else {
        Err(format!("the prefix {prefix:?} is not 1 to {MAX_PREFIX} of a-z, A-Z, 0-9, '-', '_' and '.'"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(url: &str) -> Result<String, String> {
        Address::parse(url).map(|address| address.prefix)
    }

    #[test]
    fn the_prefix_is_ovation_unless_the_url_names_one() {
        assert_eq!(prefix("redis://host").unwrap(), "ovation");
        assert_eq!(prefix("redis://host:6380/2?protocol=resp3&prefix=Night-2_b.c").unwrap(), "Night-2_b.c");
        for bad in ["", "a{b", "a}b", "a*", "a%20b", "%C3%A9", &"x".repeat(65)] {
            assert!(prefix(&format!("redis://host/?prefix={bad}")).unwrap_err().contains("the prefix"), "{bad}");
        }
    }

    #[test]
    fn the_url_names_the_server_the_user_and_the_database() {
        let address = Address::parse("redis://ann:p%40ss@host:6380/2?prefix=x").unwrap();
        assert_eq!(address.server.addr().to_string(), "host:6380");
        let settings = address.server.redis_settings();
        assert_eq!((settings.username(), settings.password(), settings.db()), (Some("ann"), Some("p@ss"), 2));
    }

    #[test]
    fn an_error_about_a_url_never_shows_its_password() {
        for bad in [
            "redis://ann:secret@",
            "redis://ann:secret@host/none",
            "redis://ann:secret@host/?prefx=a",
            "rediss://ann:secret@host/#insecure",
            "rediss://ann:secret@host/?tlsCAFile=/no/file",
            "redis://ann:secret@host/?tlsCAFile=/no/file",
        ] {
            let problem = Address::parse(bad).unwrap_err();
            assert!(!problem.contains("secret"), "{problem}");
        }
    }
}
