//! What torch itself wrote, and the same files damaged.

use std::path::{Path, PathBuf};

use ::safetensors::SafeTensors;

use super::*;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/pickles")
}

/// The bytes of a tensor in the order of its axes.
fn bytes(file: &[u8], stored: &Stored) -> Vec<u8> {
    let size = stored.dtype.bitsize() / 8;
    let [from, to] = [stored.bytes.start, stored.bytes.end];
    match &stored.strides {
        None => file[from..to].to_vec(),
        Some(strides) => super::super::stored::gather(&file[from..to], &stored.shape, strides, size),
    }
}

#[test]
fn views_of_shared_storages_are_the_tensors_that_torch_saved() {
    let file = std::fs::read(folder().join("views.bin")).unwrap();
    let expected = std::fs::read(folder().join("views.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&expected).unwrap();
    let tensors = tensors(&file).unwrap();
    assert_eq!(tensors.len(), expected.len());
    for (name, stored) in tensors {
        let view = expected.tensor(&name).unwrap();
        assert_eq!((stored.dtype, stored.shape.as_slice()), (view.dtype(), view.shape()), "{name}");
        assert_eq!(bytes(&file, &stored), view.data(), "{name}");
    }
}

#[test]
fn what_is_not_read_is_said() {
    for (name, words) in [
        ("legacy", &["before version 1.6"][..]),
        ("protocol_4", &["protocol 4"]),
        ("command", &[".system"]),
        ("expanded", &["weight", "repeats"]),
        ("sparse", &["_rebuild_sparse_tensor"]),
        ("float8", &["_rebuild_tensor_v3"]),
        ("module", &["Linear"]),
        ("list", &["not a dict"]),
        ("number", &["weight", "an int"]),
        ("big_endian", &["\"big\""]),
        ("compressed", &["compressed"]),
        ("other", &["data.pkl"]),
    ] {
        let file = std::fs::read(folder().join(format!("refused/{name}.bin"))).unwrap();
        match tensors(&file) {
            Err(Fault::Unsupported(what)) => {
                assert!(words.iter().all(|word| what.contains(word)) && !what.ends_with('.'), "{name}: {what}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn a_tensor_beyond_its_storage_is_named() {
    let storage = Storage { dtype: ::safetensors::Dtype::F16, key: "0", numbers: 6 };
    let check = |offset, shape: &[usize], strides: &[usize]| {
        let (shape, strides) = (shape.to_vec(), strides.to_vec());
        view("a.weight", Pickled { storage, offset, shape, strides }, &(100..112))
    };
    assert_eq!(check(2, &[2, 2], &[2, 1]).unwrap().bytes, 104..112);
    assert_eq!(check(0, &[3, 2], &[1, 3]).unwrap().strides, Some(vec![1, 3]));
    for (offset, shape, strides) in [
        (3, &[2, 2][..], &[2, 1][..]),
        (usize::MAX, &[2], &[1]),
        (0, &[usize::MAX, 2], &[2, 1]),
        (0, &[2], &[usize::MAX]),
        (0, &[7], &[0]),
    ] {
        let error = check(offset, shape, strides).unwrap_err().to_string();
        assert!(error.contains("a.weight"), "{error}");
    }
}

#[test]
fn a_damaged_file_is_an_error_or_tensors_within_it() {
    let original = std::fs::read(folder().join("views.bin")).unwrap();
    for at in 0..original.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut file = original.clone();
            file[at] ^= flip;
            for (_, stored) in tensors(&file).into_iter().flatten() {
                assert!(stored.bytes.end <= file.len());
                assert!(elements(&stored.shape).unwrap() * stored.dtype.bitsize() <= file.len() * 8);
            }
        }
        assert!(tensors(&original[..at]).is_err());
    }
}
