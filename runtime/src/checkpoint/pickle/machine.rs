//! The machine: a stack, a memo, and what they point to. Memory is bounded by the number of instructions, and
//! nothing is nested, so that no depth of nesting can do harm.

use std::collections::HashMap;

use super::super::cursor::Cursor;
use super::super::stored::{Fault, MAX_AXES};
use super::opcode::{Opcode, name};
use super::value::{Global, Pickled, Storage, Value};

/// Instructions that are run: about 40 for each tensor.
const MAX_STEPS: usize = 1 << 20;
const PROTOCOL: u8 = 2;

#[derive(Default)]
pub(super) struct Machine<'a> {
    stack: Vec<Value<'a>>,
    /// Where on the stack each open group begins.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    /// Tuples and lists.
    sequences: Vec<Vec<Value<'a>>>,
    dicts: Vec<Vec<(Value<'a>, Value<'a>)>>,
    storages: Vec<Storage<'a>>,
    tensors: Vec<Pickled<'a>>,
}

impl<'a> Machine<'a> {
    /// Runs all of `pickle`; its value is what is left.
    pub fn run(&mut self, pickle: &'a [u8]) -> Result<Value<'a>, Fault> {
        let mut code = Cursor::new(pickle);
        for _ in 0..MAX_STEPS {
            let at = pickle.len() - code.len();
            let byte = code.u8().ok_or_else(|| Fault::malformed("its pickle is cut short"))?;
            let opcode = Opcode::of(byte).ok_or_else(|| {
                Fault::unsupported(format!("its pickle has the instruction {byte:#04x} ({}) at {at}", name(byte)))
            })?;
            if opcode == Opcode::Stop {
                return self.stack.pop().ok_or_else(|| Fault::malformed("its pickle is empty"));
            }
            // Refusals say what they refuse; all other failures are one of the bytes.
            let done = self.step(opcode, &mut code)?;
            done.ok_or_else(|| Fault::malformed(format!("its pickle is garbled at {at} ({opcode:?})")))?;
        }
        Err(Fault::malformed(format!("its pickle has more than {MAX_STEPS} instructions")))
    }

    /// The entries of a dict.
    pub fn dict(&self, value: Value<'a>) -> Option<&[(Value<'a>, Value<'a>)]> {
        let Value::Dict(place) = value else { return None };
        self.dicts.get(place).map(Vec::as_slice)
    }

    pub fn tensor(&self, value: Value<'a>) -> Option<&Pickled<'a>> {
        let Value::Tensor(place) = value else { return None };
        self.tensors.get(place)
    }

    /// One instruction; `None` when the bytes make no sense.
    fn step(&mut self, opcode: Opcode, code: &mut Cursor<'a>) -> Result<Option<()>, Fault> {
        match opcode {
            Opcode::Proto => protocol(code),
            Opcode::Global => self.global(code),
            Opcode::Reduce => self.reduce(),
            Opcode::Build => self.build(),
            other => Ok(self.plain(other, code)),
        }
    }

    /// The instructions that only move values.
    fn plain(&mut self, opcode: Opcode, code: &mut Cursor<'a>) -> Option<()> {
        match opcode {
            Opcode::Mark => self.marks.push(self.stack.len()),
            Opcode::None => self.stack.push(Value::None),
            Opcode::NewTrue | Opcode::NewFalse => self.stack.push(Value::Bool),
            Opcode::BinInt => self.stack.push(Value::Int(i32::from_le_bytes(code.array()?).into())),
            Opcode::BinInt1 => self.stack.push(Value::Int(code.u8()?.into())),
            Opcode::BinInt2 => self.stack.push(Value::Int(code.u16()?.into())),
            Opcode::Long1 => self.stack.push(Value::Int(long(code)?)),
            Opcode::BinFloat => {
                code.take(8)?;
                self.stack.push(Value::Float);
            }
            Opcode::BinUnicode => {
                let length = code.u32()? as usize;
                self.stack.push(Value::Text(str::from_utf8(code.take(length)?).ok()?));
            }
            Opcode::EmptyTuple => self.tuple(0)?,
            Opcode::Tuple1 => self.tuple(1)?,
            Opcode::Tuple2 => self.tuple(2)?,
            Opcode::Tuple3 => self.tuple(3)?,
            Opcode::Tuple => {
                let group = self.group()?;
                self.sequences.push(group);
                self.stack.push(Value::Tuple(self.sequences.len() - 1));
            }
            Opcode::EmptyList => {
                self.sequences.push(Vec::new());
                self.stack.push(Value::List(self.sequences.len() - 1));
            }
            Opcode::EmptyDict => self.empty_dict(),
            Opcode::Append => {
                let value = self.stack.pop()?;
                self.extend(vec![value])?;
            }
            Opcode::Appends => {
                let group = self.group()?;
                self.extend(group)?;
            }
            Opcode::SetItem => {
                let (value, key) = (self.stack.pop()?, self.stack.pop()?);
                self.update(&[key, value])?;
            }
            Opcode::SetItems => {
                let group = self.group()?;
                self.update(&group)?;
            }
            Opcode::BinPut => drop(self.memo.insert(code.u8()?.into(), *self.stack.last()?)),
            Opcode::LongBinPut => drop(self.memo.insert(code.u32()?, *self.stack.last()?)),
            Opcode::BinGet => self.stack.push(*self.memo.get(&code.u8()?.into())?),
            Opcode::LongBinGet => self.stack.push(*self.memo.get(&code.u32()?)?),
            Opcode::BinPersId => self.persistent()?,
            Opcode::Proto | Opcode::Stop | Opcode::Global | Opcode::Reduce | Opcode::Build => return None,
        }
        Some(())
    }

    /// The values since the last mark.
    fn group(&mut self) -> Option<Vec<Value<'a>>> {
        let mark = self.marks.pop()?;
        (mark <= self.stack.len()).then(|| self.stack.split_off(mark))
    }

    fn tuple(&mut self, length: usize) -> Option<()> {
        let parts = self.stack.split_off(self.stack.len().checked_sub(length)?);
        self.sequences.push(parts);
        self.stack.push(Value::Tuple(self.sequences.len() - 1));
        Some(())
    }

    fn extend(&mut self, values: Vec<Value<'a>>) -> Option<()> {
        let Value::List(place) = *self.stack.last()? else { return None };
        self.sequences.get_mut(place)?.extend(values);
        Some(())
    }

    fn update(&mut self, pairs: &[Value<'a>]) -> Option<()> {
        let Value::Dict(place) = *self.stack.last()? else { return None };
        let (pairs, []) = pairs.as_chunks() else { return None };
        self.dicts.get_mut(place)?.extend(pairs.iter().map(|[key, value]| (*key, *value)));
        Some(())
    }

    fn empty_dict(&mut self) {
        self.dicts.push(Vec::new());
        self.stack.push(Value::Dict(self.dicts.len() - 1));
    }

    fn global(&mut self, code: &mut Cursor<'a>) -> Result<Option<()>, Fault> {
        let (Some(module), Some(name)) = (code.until(b'\n'), code.until(b'\n')) else { return Ok(None) };
        let (Ok(module), Ok(name)) = (str::from_utf8(module), str::from_utf8(name)) else { return Ok(None) };
        let global = Global::of(module, name).ok_or_else(|| {
            let name: String = format!("{module}.{name}").chars().take(100).collect();
            Fault::unsupported(format!("its pickle asks Python for {name:?}, which is nothing that a state dict needs"))
        })?;
        self.stack.push(Value::Global(global));
        Ok(Some(()))
    }

    /// What is called: `OrderedDict()`, and the functions that make tensors.
    fn reduce(&mut self) -> Result<Option<()>, Fault> {
        let (Some(arguments), Some(called)) = (self.stack.pop(), self.stack.pop()) else { return Ok(None) };
        let (Value::Tuple(place), Value::Global(global)) = (arguments, called) else {
            return Err(Fault::unsupported(format!("its pickle calls {}", called.kind())));
        };
        let Some(arguments) = self.sequences.get(place) else { return Ok(None) };
        match (global, arguments.as_slice()) {
            (Global::OrderedDict, []) => self.empty_dict(),
            (Global::RebuildParameter, [tensor @ Value::Tensor(_), ..]) => {
                let tensor = *tensor;
                self.stack.push(tensor);
            }
            (
                Global::RebuildTensor,
                [Value::Storage(storage), offset, Value::Tuple(shape), Value::Tuple(strides), ..],
            ) => {
                let tensor = self.rebuild(*storage, *offset, *shape, *strides);
                let Some(tensor) = tensor else { return Ok(None) };
                self.tensors.push(tensor);
                self.stack.push(Value::Tensor(self.tensors.len() - 1));
            }
            _ => return Ok(None),
        }
        Ok(Some(()))
    }

    fn rebuild(&self, storage: usize, offset: Value<'a>, shape: usize, strides: usize) -> Option<Pickled<'a>> {
        let sizes = |place: usize| {
            // One long shape could be named many times.
            let axes = self.sequences.get(place).filter(|axes| axes.len() <= MAX_AXES)?;
            axes.iter().map(|axis| size(*axis)).collect::<Option<Vec<_>>>()
        };
        let (shape, strides) = (sizes(shape)?, sizes(strides)?);
        let storage = *self.storages.get(storage)?;
        (shape.len() == strides.len()).then_some(Pickled { storage, offset: size(offset)?, shape, strides })
    }

    /// Attributes: those of a dict (torch keeps versions of modules there) mean nothing to the tensors.
    fn build(&mut self) -> Result<Option<()>, Fault> {
        let (Some(_), Some(object)) = (self.stack.pop(), self.stack.last()) else { return Ok(None) };
        match object {
            Value::Dict(_) => Ok(Some(())),
            other => Err(Fault::unsupported(format!("its pickle sets attributes of {}", other.kind()))),
        }
    }

    /// `("storage", class, key, device, numbers)`: the one thing that torch keeps outside of the pickle.
    fn persistent(&mut self) -> Option<()> {
        let Value::Tuple(place) = self.stack.pop()? else { return None };
        let [Value::Text("storage"), Value::Global(Global::Storage(dtype)), Value::Text(key), Value::Text(_), numbers] =
            *self.sequences.get(place)?.as_slice()
        else {
            return None;
        };
        self.storages.push(Storage { dtype, key, numbers: size(numbers)? });
        self.stack.push(Value::Storage(self.storages.len() - 1));
        Some(())
    }
}

fn protocol(code: &mut Cursor<'_>) -> Result<Option<()>, Fault> {
    match code.u8() {
        Some(PROTOCOL) => Ok(Some(())),
        Some(other) => Err(Fault::unsupported(format!(
            "its pickle is of protocol {other}, but torch.save writes protocol {PROTOCOL}"
        ))),
        None => Ok(None),
    }
}

/// Little-endian two's complement of up to 8 bytes.
fn long(code: &mut Cursor<'_>) -> Option<i64> {
    let length = code.u8()?.into();
    let bytes = code.take(length)?;
    let fill = if bytes.last().is_some_and(|byte| *byte >= 0x80) { 0xff } else { 0 };
    let mut wide = [fill; 8];
    wide.get_mut(..length)?.copy_from_slice(bytes);
    Some(i64::from_le_bytes(wide))
}

fn size(value: Value<'_>) -> Option<usize> {
    let Value::Int(value) = value else { return None };
    usize::try_from(value).ok()
}
