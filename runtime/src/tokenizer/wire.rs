//! Reads the protobuf wire format (protobuf.dev/programming-guides/encoding): borrowed fields of one
//! message, never more memory than the input.

/// One value as it lies on the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Integers, booleans, enumerations.
    Varint(u64),
    /// `float` and `fixed32`.
    Fixed32(u32),
    /// `double` and `fixed64`; nothing here uses them.
    Fixed64,
    /// Strings, bytes and messages.
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    /// The bytes of a length-delimited field.
    pub fn bytes(self) -> Result<&'a [u8], String> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            other => Err(format!("a field is {other:?} where bytes belong")),
        }
    }

    /// The text of a length-delimited field.
    pub fn text(self) -> Result<&'a str, String> {
        std::str::from_utf8(self.bytes()?).map_err(|e| format!("a text is not UTF-8: {e}"))
    }

    /// The integer of a varint field.
    pub fn integer(self) -> Result<u64, String> {
        match self {
            Self::Varint(value) => Ok(value),
            other => Err(format!("a field is {other:?} where an integer belongs")),
        }
    }

    /// The number of a `float` field.
    pub fn float(self) -> Result<f32, String> {
        match self {
            Self::Fixed32(bits) => Ok(f32::from_bits(bits)),
            other => Err(format!("a field is {other:?} where a float belongs")),
        }
    }
}

/// The fields of one message in the order of the wire.
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Reads `message`.
    pub fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or("the file ends within a number")?;
            self.rest = rest;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a number is longer than ten bytes".to_owned())
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], String> {
        let len = usize::try_from(len).ok().filter(|len| *len <= self.rest.len());
        let len = len.ok_or("a field is longer than what is left of the file")?;
        let (taken, rest) = self.rest.split_at(len);
        self.rest = rest;
        Ok(taken)
    }

    fn field(&mut self) -> Result<(u64, Value<'a>), String> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed64)?,
            2 => {
                let len = self.varint()?;
                Value::Bytes(self.take(len)?)
            }
            5 => Value::Fixed32(self.take(4)?.iter().rev().fold(0, |bits, byte| bits << 8 | u32::from(*byte))),
            other => return Err(format!("the wire type {other} is not one of SentencePiece's")),
        };
        Ok((key >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_with_number_and_value() {
        let message = [0x08, 0x96, 0x01, 0x12, 2, b'h', b'i', 0x1D, 0, 0, 0x80, 0x3F, 0x21, 1, 2, 3, 4, 5, 6, 7, 8];
        let fields: Vec<_> = Fields::new(&message).map(Result::unwrap).collect();
        assert_eq!(fields[0], (1, Value::Varint(150)));
        assert_eq!(fields[1].1.text().unwrap(), "hi");
        assert_eq!(fields[2].1.float().unwrap().to_bits(), 1f32.to_bits());
        assert_eq!(fields[3], (4, Value::Fixed64));
    }

    #[test]
    fn a_cut_or_oversized_field_ends_with_an_error() {
        for message in
            [&[0x08][..], &[0x12, 5, b'a'], &[0x1D, 0], &[0x0B], &[0xFF; 12], &[0x12, 0xFF, 0xFF, 0xFF, 0x7F]]
        {
            let fields: Vec<_> = Fields::new(message).collect();
            assert!(fields.last().unwrap().is_err(), "{message:?}");
        }
    }
}
