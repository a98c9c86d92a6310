//! The instructions that torch writes, by their bytes and by their names in Python's documentation.

/// Instructions of protocol 2 that occur in a state dict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    Proto,
    Stop,
    Mark,
    None,
    NewTrue,
    NewFalse,
    BinInt,
    BinInt1,
    BinInt2,
    Long1,
    BinFloat,
    BinUnicode,
    EmptyTuple,
    Tuple,
    Tuple1,
    Tuple2,
    Tuple3,
    EmptyList,
    Append,
    Appends,
    EmptyDict,
    SetItem,
    SetItems,
    BinPut,
    LongBinPut,
    BinGet,
    LongBinGet,
    Global,
    Reduce,
    Build,
    BinPersId,
}

impl Opcode {
    /// The instruction of a byte.
    pub fn of(byte: u8) -> Option<Self> {
        Some(match byte {
            0x80 => Self::Proto,
            b'.' => Self::Stop,
            b'(' => Self::Mark,
            b'N' => Self::None,
            0x88 => Self::NewTrue,
            0x89 => Self::NewFalse,
            b'J' => Self::BinInt,
            b'K' => Self::BinInt1,
            b'M' => Self::BinInt2,
            0x8a => Self::Long1,
            b'G' => Self::BinFloat,
            b'X' => Self::BinUnicode,
            b')' => Self::EmptyTuple,
            b't' => Self::Tuple,
            0x85 => Self::Tuple1,
            0x86 => Self::Tuple2,
            0x87 => Self::Tuple3,
            b']' => Self::EmptyList,
            b'a' => Self::Append,
            b'e' => Self::Appends,
            b'}' => Self::EmptyDict,
            b's' => Self::SetItem,
            b'u' => Self::SetItems,
            b'q' => Self::BinPut,
            b'r' => Self::LongBinPut,
            b'h' => Self::BinGet,
            b'j' => Self::LongBinGet,
            b'c' => Self::Global,
            b'R' => Self::Reduce,
            b'b' => Self::Build,
            b'Q' => Self::BinPersId,
            _ => return None,
        })
    }
}

/// The name of an instruction that is not read, for people who look for it in Python's `pickletools`.
pub(super) fn name(byte: u8) -> &'static str {
    match byte {
        b'i' => "INST",
        b'o' => "OBJ",
        0x81 => "NEWOBJ",
        0x92 => "NEWOBJ_EX",
        0x93 => "STACK_GLOBAL",
        0x82..=0x84 => "EXT",
        b'P' => "PERSID",
        b'I' | b'L' | b'F' | b'S' | b'V' | b'T' | b'U' | b'0' | b'1' | b'2' | b'd' | b'l' | b'p' | b'g' => {
            "of protocol 0 or 1"
        }
        0x8b..=0x98 => "of protocol 3 or later",
        _ => "unknown",
    }
}
