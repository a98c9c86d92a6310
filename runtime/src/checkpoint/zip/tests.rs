//! Directories as torch and others write them, and what may be wrong with them.

use super::*;

fn u16s(out: &mut Vec<u8>, values: &[u16]) {
    for value in values {
        out.extend(value.to_le_bytes());
    }
}

fn u32s(out: &mut Vec<u8>, values: &[u32]) {
    for value in values {
        out.extend(value.to_le_bytes());
    }
}

fn u64s(out: &mut Vec<u8>, values: &[u64]) {
    for value in values {
        out.extend(value.to_le_bytes());
    }
}

/// A file of one entry `a/b` with the contents `xyz`, with zip64 fields or without.
fn file(wide: bool) -> Vec<u8> {
    let mut out = Vec::new();
    u32s(&mut out, &[LOCAL]);
    u16s(&mut out, &[20, 0, 0, 0, 0]);
    u32s(&mut out, &[0, 3, 3]);
    // Padding, as torch aligns what follows.
    u16s(&mut out, &[3, 5]);
    out.extend(b"a/b\0\0\0\0\0xyz");
    let start = out.len();
    u32s(&mut out, &[CENTRAL]);
    u16s(&mut out, &[20, 20, 0, 0, 0, 0]);
    u32s(&mut out, &if wide { [0, u32::MAX, u32::MAX] } else { [0, 3, 3] });
    u16s(&mut out, &[3, if wide { 33 } else { 5 }, 0, 0, 0]);
    u32s(&mut out, &[0, if wide { u32::MAX } else { 0 }]);
    out.extend(b"a/b");
    u16s(&mut out, &[0x4246, 1]);
    out.push(7);
    if wide {
        u16s(&mut out, &[1, 24]);
        u64s(&mut out, &[3, 3, 0]);
    }
    let size = out.len() - start;
    if wide {
        let end = out.len() as u64;
        u32s(&mut out, &[END_64]);
        out.extend(44u64.to_le_bytes());
        u16s(&mut out, &[45, 45]);
        u32s(&mut out, &[0, 0]);
        u64s(&mut out, &[1, 1, size as u64, start as u64]);
        u32s(&mut out, &[LOCATOR_64, 0]);
        out.extend(end.to_le_bytes());
        u32s(&mut out, &[1]);
    }
    u32s(&mut out, &[END, 0]);
    u16s(&mut out, &if wide { [u16::MAX; 2] } else { [1; 2] });
    u32s(&mut out, &if wide { [u32::MAX; 2] } else { [size as u32, start as u32] });
    u16s(&mut out, &[0]);
    out
}

#[test]
fn entries_are_found_with_sizes_of_32_and_of_64_bits() {
    for wide in [false, true] {
        let file = file(wide);
        let archive = Archive::open(&file).unwrap();
        assert_eq!(archive.names().collect::<Vec<_>>(), ["a/b"]);
        let range = archive.find("a/b").unwrap().unwrap();
        assert_eq!(&file[range], b"xyz");
        assert!(archive.find("a/c").unwrap().is_none());
    }
}

#[test]
fn a_file_that_is_cut_short_is_no_archive() {
    for wide in [false, true] {
        let file = file(wide);
        for length in 0..file.len() {
            assert!(matches!(Archive::open(&file[..length]), Err(Fault::Malformed(_))), "{length}");
        }
    }
}

#[test]
fn every_flipped_bit_is_an_error_or_stays_within_the_file() {
    for wide in [false, true] {
        let original = file(wide);
        for bit in 0..original.len() * 8 {
            let mut file = original.clone();
            file[bit / 8] ^= 1 << (bit % 8);
            let Ok(archive) = Archive::open(&file) else { continue };
            for name in archive.names() {
                if let Ok(Some(range)) = archive.find(name) {
                    assert!(range.end <= file.len());
                }
            }
        }
    }
}

#[test]
fn compressed_and_encrypted_entries_are_refused_by_name() {
    let original = file(false);
    let central = original.len() - END_BYTES - 54;
    for (offset, value, word) in [(8, 1, "encrypted"), (10, 8, "compressed")] {
        let mut file = original.clone();
        file[central + offset] = value;
        let Err(Fault::Unsupported(what)) = Archive::open(&file).unwrap().find("a/b") else { panic!("{word}") };
        assert!(what.contains("a/b") && what.contains(word), "{what}");
    }
}
