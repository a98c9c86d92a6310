//! The pickle of a state dict as torch writes it (protocol 2): a machine that knows only the instructions and
//! names that occur there. Everything else is refused by name; nothing is ever run.
//! <https://github.com/python/cpython/blob/main/Lib/pickletools.py>

mod machine;
mod opcode;
mod value;

use machine::Machine;
use value::Value;
pub(super) use value::{Pickled, Storage};

use super::stored::{Fault, MAX_NAME};

/// Bytes that a pickle may have: some hundred for each tensor.
const MAX_BYTES: usize = 8 << 20;
/// Tensors that a state dict may have.
const MAX_TENSORS: usize = 1 << 17;

/// The tensors of a pickled state dict, or of one that stands in a dict under `state_dict` or `model`.
pub(super) fn state_dict(pickle: &[u8]) -> Result<Vec<(&str, Pickled<'_>)>, Fault> {
    if pickle.len() > MAX_BYTES {
        let reason = format!("its pickle has {} bytes, more than the {MAX_BYTES} that are read", pickle.len());
        return Err(Fault::malformed(reason));
    }
    let mut machine = Machine::default();
    let whole = machine.run(pickle)?;
    let entries = machine.dict(whole).ok_or_else(|| Fault::unsupported("its pickle is not a dict of tensors"))?;
    let inner = ["state_dict", "model"].into_iter().find_map(|wrapper| {
        entries.iter().find_map(|(key, value)| (*key == Value::Text(wrapper)).then(|| machine.dict(*value))?)
    });
    let entries = inner.unwrap_or(entries);
    if entries.len() > MAX_TENSORS {
        let reason = format!("its pickle has {} tensors, more than the {MAX_TENSORS} that are read", entries.len());
        return Err(Fault::malformed(reason));
    }
    entries.iter().map(|(key, value)| entry(&machine, *key, *value)).collect()
}

fn entry<'a>(machine: &Machine<'a>, key: Value<'a>, value: Value<'a>) -> Result<(&'a str, Pickled<'a>), Fault> {
    let Value::Text(name) = key else {
        return Err(Fault::unsupported(format!("its pickle has {} as the name of a tensor", key.kind())));
    };
    if name.len() > MAX_NAME {
        return Err(Fault::malformed(format!("its pickle has a tensor with a name of {} bytes", name.len())));
    }
    match machine.tensor(value) {
        Some(tensor) => Ok((name, tensor.clone())),
        None => Err(Fault::unsupported(format!("its pickle has {} in the place of the tensor {name}", value.kind()))),
    }
}

#[cfg(test)]
mod tests;
