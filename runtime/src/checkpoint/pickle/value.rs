//! What a state dict is made of. Values are small and copied freely: what can grow lies in the machine, and a
//! value says where.

use safetensors::Dtype;

/// A value on the machine's stack.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    None,
    Bool,
    Int(i64),
    Float,
    Text(&'a str),
    Tuple(usize),
    List(usize),
    Dict(usize),
    Global(Global),
    Storage(usize),
    Tensor(usize),
}

impl Value<'_> {
    /// What it is, for people.
    pub fn kind(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool => "a bool",
            Self::Int(_) => "an int",
            Self::Float => "a float",
            Self::Text(_) => "a string",
            Self::Tuple(_) => "a tuple",
            Self::List(_) => "a list",
            Self::Dict(_) => "a dict",
            Self::Global(_) => "a Python name",
            Self::Storage(_) => "a storage",
            Self::Tensor(_) => "a tensor",
        }
    }
}

/// Python names that a state dict refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(Dtype),
}

impl Global {
    /// The name `name` of `module`; `None` for every name that has no business in a state dict.
    pub fn of(module: &str, name: &str) -> Option<Self> {
        match (module, name) {
            ("collections", "OrderedDict") => Some(Self::OrderedDict),
            ("torch._utils", "_rebuild_tensor_v2") => Some(Self::RebuildTensor),
            ("torch._utils", "_rebuild_parameter") => Some(Self::RebuildParameter),
            ("torch", storage) => storage.strip_suffix("Storage").and_then(dtype).map(Self::Storage),
            _ => None,
        }
    }
}

/// The number format of torch's class of storages.
fn dtype(class: &str) -> Option<Dtype> {
    Some(match class {
        "Float" => Dtype::F32,
        "Half" => Dtype::F16,
        "BFloat16" => Dtype::BF16,
        "Double" => Dtype::F64,
        "Long" => Dtype::I64,
        "Int" => Dtype::I32,
        "Short" => Dtype::I16,
        "Char" => Dtype::I8,
        "Byte" => Dtype::U8,
        "Bool" => Dtype::BOOL,
        _ => return None,
    })
}

/// Numbers that lie in an entry of the zip file; tensors are views of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Storage<'a> {
    pub dtype: Dtype,
    /// Name of the entry, below `data/`.
    pub key: &'a str,
    /// How many numbers.
    pub numbers: usize,
}

/// A tensor as the pickle describes it; nothing of it has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Pickled<'a> {
    pub storage: Storage<'a>,
    /// First number of the storage.
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}
