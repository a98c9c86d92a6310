//! The largest number for which something holds that, once false, stays false.

/// The largest of `most` and the multiples of `step` below it for which `holds`; `None` when it holds for none.
pub(super) fn largest(most: u64, step: u64, holds: impl Fn(u64) -> bool) -> Option<u64> {
    if holds(most) {
        return Some(most);
    }
    let (mut holding, mut failing) = (0, most.div_ceil(step));
    while failing - holding > 1 {
        let middle = holding + (failing - holding) / 2;
        if holds(middle * step) {
            holding = middle;
        } else {
            failing = middle;
        }
    }
    (holding > 0).then_some(holding * step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_border_is_found() {
        for most in 1..70 {
            for limit in 0..80 {
                let expected = (1..=most).rev().find(|n| *n <= limit && (*n == most || n % 8 == 0));
                assert_eq!(largest(most, 8, |n| n <= limit), expected, "{most}, {limit}");
            }
        }
    }
}
