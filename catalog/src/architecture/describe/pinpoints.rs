//! The sizes of grids among which LLaVA-1.6 chooses.

use super::super::ArchitectureError;
use super::super::raw::RawPinpoints;
use super::fields::{invalid, shortened, unsupported};

const FIELD: &str = "image_grid_pinpoints";
/// Of LLaVA-1.6, as (height, width).
const DEFAULT: [(u32, u32); 5] = [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)];
const MOST: usize = 64;

/// What the numbers of a pair are. The order decides which of two equally good sizes wins: the first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As the transformers library reads them.
    HeightWidth,
    /// As the original LLaVA reads them.
    WidthHeight,
}

/// The sizes as (height, width), in the order of the file. Only the transformers library has a default.
pub fn read(raw: Option<&RawPinpoints>, order: Order) -> Result<Vec<(u32, u32)>, ArchitectureError> {
    let pairs = match raw {
        None if order == Order::HeightWidth => return Ok(DEFAULT.to_vec()),
        None => return Err(invalid(FIELD, &"missing", "a list of sizes")),
        Some(RawPinpoints::Pairs(pairs)) => pairs.clone(),
        Some(RawPinpoints::Text(text)) => parse(text)?,
    };
    let edge = |value: i64| u32::try_from(value).ok().filter(|edge| (1..=1 << 16).contains(edge));
    let size = |&(first, second): &(i64, i64)| match order {
        Order::HeightWidth => Some((edge(first)?, edge(second)?)),
        Order::WidthHeight => Some((edge(second)?, edge(first)?)),
    };
    match pairs.iter().map(size).collect::<Option<Vec<_>>>() {
        Some(sizes) if (1..=MOST).contains(&sizes.len()) => Ok(sizes),
        _ => Err(invalid(FIELD, &shortened(&pairs), &format!("1 to {MOST} pairs of numbers between 1 and 65536"))),
    }
}

/// `"[(336, 672), (672, 336)]"`.
fn parse(text: &str) -> Result<Vec<(i64, i64)>, ArchitectureError> {
    if text.len() > 1 << 12 || !text.chars().all(|c| c.is_ascii_digit() || "[](), ".contains(c)) {
        let shown: String = text.chars().take(40).collect();
        return Err(unsupported(&format!("{FIELD} {shown:?}"), "a list of pairs, such as [[336, 672], [672, 336]]"));
    }
    let numbers: Vec<&str> = text.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty()).collect();
    let pairs = numbers.chunks(2).map(|pair| match pair {
        [first, second] => Some((first.parse().ok()?, second.parse().ok()?)),
        _ => None,
    });
    pairs.collect::<Option<_>>().ok_or_else(|| invalid(FIELD, &format!("{text:?}"), "a list of pairs of numbers"))
}
