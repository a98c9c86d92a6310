//! Which addresses may be asked: public ones, and those of networks that the server's owner names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Special-purpose blocks of IPv4 (IANA's registry, RFC 6890 and later), and multicast.
const SPECIAL_V4: [(Ipv4Addr, u8); 15] = [
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// Blocks of `2000::/3`, outside of which no IPv6 address is public, that are not public either: protocol assignments
/// with Teredo, documentation, and 6to4, which hides an IPv4 address.
const SPECIAL_V6: [(Ipv6Addr, u8); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// A block of addresses, such as `10.1.0.0/16` or `2001:db8::/32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    base: IpAddr,
    prefix: u8,
}

impl Network {
    /// Whether `address` is one of it. An IPv4 address inside of an IPv6 one is not.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                let shift = 32 - u32::from(self.prefix);
                shift == 32 || base.to_bits() >> shift == address.to_bits() >> shift
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                let shift = 128 - u32::from(self.prefix);
                shift == 128 || base.to_bits() >> shift == address.to_bits() >> shift
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no network; write one as 10.1.0.0/16 or as a single address");
        let (base, prefix) = match text.split_once('/') {
            Some((base, prefix)) => (base, Some(prefix.parse::<u8>().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let base: IpAddr = base.parse().map_err(|_| wrong())?;
        let longest = if base.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(longest);
        if prefix > longest {
            return Err(wrong());
        }
        Ok(Self { base, prefix })
    }
}

/// Networks that are asked although they are not public.
#[derive(Clone, Debug, Default)]
pub struct Networks(pub Vec<Network>);

impl Networks {
    /// Whether `address` may be asked.
    pub fn admit(&self, address: IpAddr) -> bool {
        is_public(address) || self.0.iter().any(|network| network.contains(address))
    }
}

fn is_public(address: IpAddr) -> bool {
    let among = |special: &[(IpAddr, u8)]| {
        special.iter().any(|(base, prefix)| Network { base: *base, prefix: *prefix }.contains(address))
    };
    match address {
        IpAddr::V4(_) => !among(&SPECIAL_V4.map(|(base, prefix)| (base.into(), prefix))),
        IpAddr::V6(inner) => {
            if let Some(hidden) = nat64(inner) {
                return is_public(hidden.into());
            }
            inner.segments()[0] & 0xe000 == 0x2000 && !among(&SPECIAL_V6.map(|(base, prefix)| (base.into(), prefix)))
        }
    }
}

/// The IPv4 address behind the well-known prefix of NAT64 (RFC 6052), by which IPv6-only hosts reach all of IPv4.
fn nat64(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [0x64, 0xff9b, 0, 0, 0, 0, high, low] = address.segments() else { return None };
    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
    Some(Ipv4Addr::new(a, b, c, d))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(networks: &[&str], address: &str) -> bool {
        let networks = networks.iter().map(|network| network.parse().unwrap()).collect();
        Networks(networks).admit(address.parse().unwrap())
    }

    #[test]
    fn only_public_addresses_are_asked() {
        for public in ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1", "64:ff9b::808:808", "2a00::1"] {
            assert!(admits(&[], public), "{public}");
        }
        for inside in [
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.168.1.1",
            "198.19.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::7f00:1",
            "64:ff9b::a00:1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "2001::1",
            "2002:7f00:1::",
            "2001:db8::1",
            "3fff::1",
            "5f00::1",
            "100::1",
        ] {
            assert!(!admits(&[], inside), "{inside}");
        }
    }

    #[test]
    fn named_networks_are_asked_too() {
        assert!(admits(&["10.1.0.0/16"], "10.1.2.3") && !admits(&["10.1.0.0/16"], "10.2.0.1"));
        assert!(admits(&["127.0.0.2"], "127.0.0.2") && !admits(&["127.0.0.2"], "127.0.0.1"));
        assert!(admits(&["fd00::/8"], "fd12::1") && !admits(&["fd00::/8"], "fe80::1"));
        assert!(admits(&["0.0.0.0/0"], "127.0.0.1") && !admits(&["0.0.0.0/0"], "::1"));
        assert!(!admits(&["127.0.0.0/8"], "::ffff:127.0.0.1"));
        for wrong in ["", "x", "10.0.0.0/33", "10.0.0.0/", "::/129", "10.0.0/8", "10.0.0.0/-1"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }
}
