//! Whose request it is, where proxies stand before a door, and which network that is of.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

/// The header that each proxy appends its own peer's address to. Over gRPC it is the metadata of this name.
pub const FORWARDED_FOR: &str = "x-forwarded-for";

/// The proxies whose word on a client's address is taken; none by default.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "Listed", into = "Vec<IpNet>")]
pub struct TrustedProxies(Arc<[IpNet]>);

impl TrustedProxies {
    /// The address of the client behind a peer: the right-most of the forwarded addresses that is no trusted proxy's.
    ///
    /// Only what a trusted proxy appended is believed, and whatever stands left of it came from outside. So the walk goes
    /// from the peer to the left and ends at the first address that is not trusted, or before an entry that is no address.
    /// `lines` are the values of all [`FORWARDED_FOR`] headers, in order. An entry may have a port, as some proxies write it.
    pub fn client<'a>(&self, peer: IpAddr, lines: impl IntoIterator<Item = &'a str>) -> IpAddr {
        let mut client = peer.to_canonical();
        if !self.have(client) {
            return client;
        }
        let lines: Vec<_> = lines.into_iter().collect();
        for entry in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
            match address(entry) {
                Some(address) if self.have(client) => client = address,
                _ => break,
            }
        }
        client
    }

    /// The network of the client behind a peer. A trusted proxy that names nobody is not its own client: whose request it
    /// passes on is not known then.
    pub fn network<'a>(&self, peer: IpAddr, lines: impl IntoIterator<Item = &'a str>) -> Option<Network> {
        let client = self.client(peer, lines);
        (client != peer.to_canonical() || !self.have(client)).then(|| client.into())
    }

    fn have(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

fn address(entry: &str) -> Option<IpAddr> {
    let entry = entry.trim();
    let address = entry.parse().ok().or_else(|| Some(entry.parse::<SocketAddr>().ok()?.ip()));
    address.as_ref().map(IpAddr::to_canonical)
}

/// The list as it is configured: one text with commas, as flags and the environment have it, or a list of texts.
#[derive(Deserialize)]
#[serde(untagged, expecting = "give a list of addresses and networks, like 10.0.0.0/8 or 192.0.2.7")]
enum Listed {
    Text(String),
    List(Vec<String>),
}

impl TryFrom<Listed> for TrustedProxies {
    type Error = String;

    fn try_from(listed: Listed) -> Result<Self, String> {
        match listed {
            Listed::Text(text) => text.parse(),
            Listed::List(entries) => entries.iter().map(|entry| network(entry)).collect::<Result<_, _>>().map(Self),
        }
    }
}

impl FromStr for TrustedProxies {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        text.split(',').map(network).collect::<Result<_, _>>().map(Self)
    }
}

impl From<TrustedProxies> for Vec<IpNet> {
    fn from(proxies: TrustedProxies) -> Self {
        proxies.0.to_vec()
    }
}

/// A network of proxies, or a single one. Its addresses are compared as canonical ones, so it is made one of those.
fn network(entry: &str) -> Result<IpNet, String> {
    let entry = entry.trim();
    let parse = || match entry.split_once('/') {
        None => entry.parse::<IpAddr>().ok().map(IpNet::from),
        Some((address, length)) => IpNet::new(address.parse().ok()?, length.parse().ok()?).ok(),
    };
    let network =
        parse().ok_or_else(|| format!("{entry:?} is no address or network; give one like 192.0.2.7 or 10.0.0.0/8"))?;
    let mapped = match network {
        IpNet::V6(network) => network.addr().to_ipv4_mapped().zip(network.prefix_len().checked_sub(96)),
        IpNet::V4(_) => None,
    };
    Ok(match mapped {
        Some((address, length)) => Ipv4Net::new(address, length).map_or(network, IpNet::V4),
        None => network,
    })
}

/// Addresses that are most likely one party's: a /24 of IPv4, a /48 of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network(IpNet);

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        let address = address.to_canonical();
        let length = if address.is_ipv4() { 24 } else { 48 };
        Self(IpNet::new(address, length).map_or_else(|_| address.into(), |network| network.trunc()))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn proxies(list: &str) -> TrustedProxies {
        list.parse().unwrap()
    }

    fn client(peer: &str, lines: &[&str]) -> String {
        let proxies = proxies("10.0.0.0/8, 192.0.2.7, fd00::/8");
        proxies.client(peer.parse().unwrap(), lines.iter().copied()).to_string()
    }

    #[test]
    fn the_client_is_who_the_last_trusted_proxy_saw() {
        assert_eq!(client("10.1.2.3", &["203.0.113.9"]), "203.0.113.9");
        assert_eq!(client("10.1.2.3", &["203.0.113.9, 192.0.2.7"]), "203.0.113.9");
        assert_eq!(client("10.1.2.3", &["203.0.113.9", "10.9.9.9", "192.0.2.7,10.8.8.8"]), "203.0.113.9");
        assert_eq!(client("fd00::1", &["2001:db8::9\t,\tfd00::2"]), "2001:db8::9");
        assert_eq!(client("10.1.2.3", &["203.0.113.9:4711, [fd00::2]:80"]), "203.0.113.9", "some proxies write ports");
        assert_eq!(client("10.1.2.3", &[]), "10.1.2.3");
        assert_eq!(client("10.1.2.3", &["10.0.0.1, 10.0.0.2"]), "10.0.0.1", "a client that is a proxy itself");
    }

    #[test]
    fn a_proxy_that_names_nobody_is_not_a_client() {
        let network = |peer: &str, lines: &[&str]| {
            let network = proxies("10.0.0.0/8").network(peer.parse().unwrap(), lines.iter().copied());
            network.map(|network| network.to_string())
        };
        assert_eq!(network("10.1.2.3", &[]), None);
        assert_eq!(network("::ffff:10.1.2.3", &["unknown"]), None);
        assert_eq!(network("10.1.2.3", &["10.9.9.9"]).as_deref(), Some("10.9.9.0/24"));
        assert_eq!(network("203.0.113.9", &[]).as_deref(), Some("203.0.113.0/24"));
    }

    #[test]
    fn what_a_client_sends_is_never_believed() {
        assert_eq!(client("203.0.113.9", &["198.51.100.1"]), "203.0.113.9", "not through a proxy at all");
        assert_eq!(client("192.0.2.8", &["198.51.100.1"]), "192.0.2.8", "beside a proxy");
        assert_eq!(client("10.1.2.3", &["198.51.100.1, 203.0.113.9"]), "203.0.113.9");
        assert_eq!(client("10.1.2.3", &["198.51.100.1", "203.0.113.9"]), "203.0.113.9", "in a line of its own");
        assert_eq!(client("10.1.2.3", &["10.0.0.1, 203.0.113.9"]), "203.0.113.9", "posing as a proxy");
        assert_eq!(
            client("10.1.2.3", &["198.51.100.1, 192.0.2.7, 203.0.113.9"]),
            "203.0.113.9",
            "and the proxy before"
        );
    }

    #[test]
    fn a_malformed_entry_ends_the_walk() {
        for entry in [
            "",
            " ",
            "unknown",
            "_hidden",
            "203.0.113.300",
            "203.0.113",
            "0xcb007109",
            "203.0.113.09",
            "203.0.113.9/32",
            "203.0.113.9 198.51.100.1",
            "203.0.113.9;",
            "\"203.0.113.9\"",
            "for=203.0.113.9",
            "[2001:db8::9]:",
            "2001:db8::9%eth0",
            "203.0.113.9:99999",
            "\u{ff12}03.0.113.9",
        ] {
            assert_eq!(client("10.1.2.3", &[entry]), "10.1.2.3", "{entry:?}");
            assert_eq!(client("10.1.2.3", &["198.51.100.1", &format!("{entry},10.4.4.4")]), "10.4.4.4", "{entry:?}");
        }
        assert_eq!(client("10.1.2.3", &["198.51.100.1,"]), "10.1.2.3");
        assert_eq!(client("10.1.2.3", &[&",".repeat(100_000)]), "10.1.2.3");
        assert_eq!(client("10.1.2.3", &[&"10.0.0.1,".repeat(10_000), "10.0.0.2"]), "10.0.0.2");
    }

    #[test]
    fn an_ipv4_address_is_one_however_it_is_written() {
        assert_eq!(client("::ffff:10.1.2.3", &["203.0.113.9"]), "203.0.113.9");
        assert_eq!(client("10.1.2.3", &["::ffff:203.0.113.9, ::ffff:192.0.2.7"]), "203.0.113.9");
        assert_eq!(client("::ffff:203.0.113.9", &["198.51.100.1"]), "203.0.113.9");
        let mapped = proxies("::ffff:10.0.0.0/104");
        assert_eq!(mapped.client([10, 1, 2, 3].into(), ["203.0.113.9"]).to_string(), "203.0.113.9");
        assert_eq!(mapped.client([11, 1, 2, 3].into(), ["203.0.113.9"]).to_string(), "11.1.2.3");
    }

    #[test]
    fn a_network_is_what_one_party_has() {
        let network = |address: &str| Network::from(address.parse::<IpAddr>().unwrap()).to_string();
        assert_eq!(network("203.0.113.9"), "203.0.113.0/24");
        assert_eq!(network("::ffff:203.0.113.200"), "203.0.113.0/24");
        assert_eq!(network("2001:db8:1:2::9"), "2001:db8:1::/48");
    }

    #[test]
    fn proxies_are_a_text_or_a_list() {
        let read = |value| serde_json::from_value::<TrustedProxies>(value).map_err(|error| error.to_string());
        for none in [json!(""), json!(" "), json!([])] {
            assert!(read(none).unwrap().0.is_empty());
        }
        for two in [json!("10.0.0.0/8, ::1"), json!(["10.0.0.0/8", "::1"])] {
            let proxies = read(two).unwrap();
            assert_eq!(serde_json::to_value(&proxies).unwrap(), json!(["10.0.0.0/8", "::1/128"]));
        }
        for wrong in
            ["10.0.0.0/33", "10.0.0.0/", "10.0.0/8", "010.0.0.0/8", "::1/129", "proxy", "10.0.0.1,,10.0.0.2", ","]
        {
            let error = read(json!(wrong)).unwrap_err();
            assert!(error.contains("give one like"), "{wrong}: {error}");
        }
        assert!(read(json!(["10.0.0.1,10.0.0.2"])).is_err());
        assert!(read(json!(10)).unwrap_err().contains("give a list of addresses"));
    }
}
