//! Amounts of memory as Kubernetes writes them: `512Mi`, `16G`, `1.5Gi`, `1e9`.
//! <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>

/// Digits that are read; more say nothing about bytes.
const MAX_DIGITS: usize = 27;
/// What is written behind the number, and what it multiplies with.
const SUFFIXES: [(&str, u128); 13] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
    ("Ei", 1 << 60),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000),
    ("", 1),
];

/// The bytes of a quantity, a part of a byte rounded down; `None` when it is none, or more than can be counted.
pub fn bytes(text: &str) -> Option<u64> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || digits.len() > MAX_DIGITS || fraction.contains('.') {
        return None;
    }
    let divisor = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let (factor, divisor) = match suffix {
        "m" => (1, divisor.checked_mul(1_000)?),
        "u" => (1, divisor.checked_mul(1_000_000)?),
        "n" => (1, divisor.checked_mul(1_000_000_000)?),
        _ => match SUFFIXES.iter().find(|(name, _)| *name == suffix) {
            Some((_, factor)) => (*factor, divisor),
            None => exponent(suffix, divisor)?,
        },
    };
    let product = digits.parse::<u128>().ok()?.checked_mul(factor)?;
    u64::try_from(product / divisor).ok()
}

/// Factor and divisor of an exponent, `e9` or `E-3`.
fn exponent(suffix: &str, divisor: u128) -> Option<(u128, u128)> {
    let power: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let ten = 10_u128.checked_pow(power.unsigned_abs())?;
    if power < 0 { Some((1, divisor.checked_mul(ten)?)) } else { Some((ten, divisor)) }
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        for (text, expected) in [
            ("1024", 1024),
            ("1Gi", 1 << 30),
            ("+1.5Gi", 3 << 29),
            ("500M", 500_000_000),
            ("16G", 16_000_000_000),
            ("1e9", 1_000_000_000),
            ("2E3", 2000),
            ("2E", 2_000_000_000_000_000_000),
            (".5Ki", 512),
            ("5.Ki", 5120),
            ("128974848000m", 128_974_848),
            ("1500u", 0),
            ("25e-1", 2),
            ("0", 0),
            ("15Ei", 15 << 60),
        ] {
            assert_eq!(bytes(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_none_or_too_much_is_refused() {
        for text in
            ["", "Gi", "-1Gi", "1gi", "1 Gi", "1.2.3", "1e", "1e99", "1e-99", "16Ei", "1GiB", "é", "1e9999999999"]
        {
            assert_eq!(bytes(text), None, "{text}");
        }
        assert_eq!(bytes(&"9".repeat(100_000)), None);
    }
}
