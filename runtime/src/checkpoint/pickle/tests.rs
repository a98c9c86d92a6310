//! Single instructions, and pickles that were made to harm.

use super::*;

/// `{"w": tensor}` of 2 × 3 numbers of the storage `0`.
fn tensor() -> Vec<u8> {
    let mut out = b"\x80\x02}q\x00X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n(".to_vec();
    out.extend(b"(X\x07\x00\x00\x00storagectorch\nHalfStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06tQ");
    out.extend(b"K\x00K\x02K\x03\x86K\x03K\x01\x86\x89ccollections\nOrderedDict\n)RtRs.");
    out
}

fn refused(pickle: &[u8]) -> String {
    match state_dict(pickle) {
        Ok(tensors) => panic!("read as {tensors:?}"),
        Err(fault) => fault.to_string(),
    }
}

#[test]
fn a_state_dict_is_read() {
    let pickle = tensor();
    let tensors = state_dict(&pickle).unwrap();
    let [("w", Pickled { storage, offset: 0, shape, strides })] = tensors.as_slice() else { panic!("{tensors:?}") };
    assert_eq!((storage.key, storage.numbers, storage.dtype), ("0", 6, ::safetensors::Dtype::F16));
    assert_eq!((shape.as_slice(), strides.as_slice()), ([2, 3].as_slice(), [3, 1].as_slice()));
}

#[test]
fn names_that_a_state_dict_does_not_need_are_refused() {
    for name in
        ["os\nsystem", "builtins\neval", "torch\nload", "torch._utils\n_rebuild_tensor_v3", "torch\nQuint8Storage"]
    {
        let error = refused(format!("c{name}\n)R.").as_bytes());
        assert!(error.contains(&name.replace('\n', ".")), "{error}");
    }
}

#[test]
fn instructions_that_torch_does_not_write_are_refused() {
    for (pickle, word) in [
        (&b"\x80\x02ios\nsystem\n."[..], "INST"),
        (b"\x80\x02}\x81.", "NEWOBJ"),
        (b"\x80\x02\x93.", "STACK_GLOBAL"),
        (b"\x80\x04\x95.", "protocol 4"),
        (b"\x80\x02I5\n.", "protocol 0"),
        (b"\x80\x02\xff.", "0xff"),
    ] {
        let error = refused(pickle);
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn garbled_pickles_are_refused() {
    for pickle in [
        &b""[..],
        b".",
        b"t.",
        b"(((t.",
        b"h\x05.",
        b"q\x00.",
        b"K",
        b"X\xff\xff\xff\xffabc.",
        b"X\x01\x00\x00\x00\xff.",
        b"\x8a\x09123456789.",
        b"}K\x01s.",
        b"}(K\x01u.",
        b"]K\x01K\x02s.",
        b"(K\x01}u.",
        b"N(Nb.",
        b"NQ.",
        b")Q.",
        b"R.",
        b"NNR.",
        b"ctorch\nHalfStorage\n)R.",
        b"ccollections\nOrderedDict\nN\x85R.",
        b"]}b.",
        b"c\n",
        b"N.",
        b"}K\x01K\x02s.",
        b"}X\x01\x00\x00\x00wNs.",
    ] {
        refused(pickle);
    }
    // A group that begins above the stack.
    refused(b"K\x01(\x85t.");
}

#[test]
fn a_dict_that_holds_itself_ends() {
    refused(b"}q\x00X\x0a\x00\x00\x00state_dicth\x00s.");
}

#[test]
fn what_repeats_without_end_is_refused() {
    let deep = [vec![b']'; 9 << 20], vec![b'.']].concat();
    assert!(refused(&deep).contains("bytes"));
    let deep = [vec![b']'; 2 << 20], vec![b'.']].concat();
    assert!(refused(&deep).contains("instructions"));
    // One shape of many axes, named over and over.
    let mut shapes = b"(".to_vec();
    (0..9).for_each(|_| shapes.extend(b"K\x01"));
    let pickle = tensor();
    let at = pickle.windows(6).position(|six| six == b"K\x02K\x03\x86K").unwrap();
    let shapes = [&pickle[..at], &shapes, b"tq\x01h\x01\x89", &pickle[at + 11..]].concat();
    assert!(refused(&shapes).contains("garbled"));
}

#[test]
fn every_damaged_byte_is_an_error_or_a_state_dict() {
    let original = tensor();
    for at in 0..original.len() {
        for byte in 0..=255 {
            let mut pickle = original.clone();
            pickle[at] = byte;
            let _ = state_dict(&pickle);
        }
        let _ = state_dict(&original[..at]);
    }
}
