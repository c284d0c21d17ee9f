//! What a URL says: the server, how it is known, and the prefix of the keys.

use std::fs;

use redis::{ClientTlsConfig, ConnectionInfo, IntoConnectionInfo, TlsCertificates, parse_redis_url};

/// The prefix of the keys if the URL names none.
const PREFIX: &str = "ovation";

/// The longest prefix, in characters.
const MAX_PREFIX: usize = 64;

const FORM: &str = "give redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE][?prefix=NAME], or rediss://... with TLS";

/// Where the tallies are.
#[derive(Debug)]
pub(super) struct Address {
    pub(super) server: ConnectionInfo,
    /// How server and client know each other, if they speak TLS.
    pub(super) tls: Option<TlsCertificates>,
    pub(super) prefix: String,
}

impl Address {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong and what would be right, without the password.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let mut url = parse_redis_url(url).ok_or_else(|| format!("this is no URL of a Redis; {FORM}"))?;
        if url.fragment().is_some() {
            return Err(format!("there is nothing for # in it: certificates are always checked; {FORM}"));
        }
        let has_tls = url.scheme() == "rediss";
        let mut tls = TlsCertificates { client_tls: None, root_cert: None };
        let (mut prefix, mut others) = (PREFIX.to_owned(), Vec::new());
        for (key, value) in url.query_pairs() {
            match key.as_ref() {
                "prefix" => prefix = checked_prefix(&value)?,
                "protocol" => others.push(format!("protocol={value}")),
                "tlsCAFile" if has_tls => tls.root_cert = Some(pem(&key, &value)?),
                "tlsCertificateKeyFile" if has_tls => {
                    let both = pem(&key, &value)?;
                    tls.client_tls = Some(ClientTlsConfig { client_cert: both.clone(), client_key: both });
                }
                "tlsCAFile" | "tlsCertificateKeyFile" => return Err(format!("{key} needs TLS: give rediss://...")),
                _ => {
                    return Err(format!(
                        "{key:?} is no option of a tally URL; there are `prefix` and `protocol`, and with rediss:// `tlsCAFile` \
                         and `tlsCertificateKeyFile`"
                    ));
                }
            }
        }
        url.set_query((!others.is_empty()).then(|| others.join("&")).as_deref());
        let server = url.into_connection_info().map_err(|error| format!("{error}; {FORM}"))?;
        let tcp = server.tcp_settings().clone().set_nodelay(true);
        Ok(Self { server: server.set_tcp_settings(tcp), tls: has_tls.then_some(tls), prefix })
    }
}

/// A file of certificates or keys.
fn pem(key: &str, path: &str) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{key}: {path}: {error}"))
}

/// A prefix is typed into shells and patterns, and is a hash tag: none of it may mean anything there.
fn checked_prefix(prefix: &str) -> Result<String, String> {
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
    fn the_prefix_is_ovation_or_what_the_url_says() {
        assert_eq!(prefix("redis://host").unwrap(), "ovation");
        assert_eq!(prefix("redis://host:6380/2?protocol=resp3&prefix=Night-2_b.c").unwrap(), "Night-2_b.c");
        for bad in ["", "a{b", "a}b", "a*", "a%20b", "%C3%A9", &"x".repeat(65)] {
            assert!(prefix(&format!("redis://host/?prefix={bad}")).unwrap_err().contains("the prefix"), "{bad}");
        }
    }

    #[test]
    fn the_rest_of_the_url_is_the_server() {
        let address = Address::parse("redis://ann:p%40ss@host:6380/2?prefix=x").unwrap();
        assert_eq!(address.server.addr().to_string(), "host:6380");
        let settings = address.server.redis_settings();
        assert_eq!((settings.username(), settings.password(), settings.db()), (Some("ann"), Some("p@ss"), 2));
    }

    #[test]
    fn a_bad_url_is_told_without_its_password() {
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
