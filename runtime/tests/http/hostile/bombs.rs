//! Pictures of every format that claim to be huge, or break off, or are something else.

/// A chunk of a PNG file with its checksum.
fn chunk(kind: [u8; 4], data: &[u8]) -> Vec<u8> {
    let mut crc = u32::MAX;
    for byte in kind.iter().chain(data) {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    [&(data.len() as u32).to_be_bytes(), &kind[..], data, &(!crc).to_be_bytes()].concat()
}

fn png(width: u32, height: u32, depth: u8, colour: u8) -> Vec<u8> {
    let size = [width.to_be_bytes(), height.to_be_bytes()].concat();
    let header = [&size[..], &[depth, colour, 0, 0, 0]].concat();
    [b"\x89PNG\r\n\x1a\n".to_vec(), chunk(*b"IHDR", &header), chunk(*b"IDAT", &[0x78, 0x9c, 1, 0, 0, 0xff, 0xff])]
        .concat()
}

fn jpeg(width: u16, height: u16) -> Vec<u8> {
    let [w, h] = [width, height].map(u16::to_be_bytes);
    let frame = [0xff, 0xc0, 0, 17, 8, h[0], h[1], w[0], w[1], 3, 1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1];
    [&[0xff, 0xd8], &frame[..], &[0xff, 0xda, 0, 12, 3, 1, 0, 2, 0x11, 3, 0x11, 0, 63, 0], &[0; 64]].concat()
}

fn gif(width: u16, height: u16) -> Vec<u8> {
    let size = [width.to_le_bytes(), height.to_le_bytes()].concat();
    [b"GIF89a", &size[..], &[0x80, 0, 0, 0, 0, 0, 255, 255, 255, 0x2c, 0, 0, 0, 0], &size, &[0, 2, 2, 0x4c, 1, 0, 0x3b]]
        .concat()
}

fn bmp(width: i32, height: i32) -> Vec<u8> {
    let size = [width.to_le_bytes(), height.to_le_bytes()].concat();
    let head = b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0";
    [&head[..], &size, b"\x01\0\x18\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"].concat()
}

/// A file of one directory with these entries: tag, kind (3 is 16 bits, 4 is 32), value.
fn tiff(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut file = b"II\x2a\0\x08\0\0\0".to_vec();
    file.extend((entries.len() as u16).to_le_bytes());
    for (tag, kind, value) in entries {
        file.extend([tag.to_le_bytes(), kind.to_le_bytes()].concat());
        file.extend([1_u32.to_le_bytes(), value.to_le_bytes()].concat());
    }
    file.extend([0; 4]);
    file
}

fn riff(kind: [u8; 4], data: &[u8]) -> Vec<u8> {
    let body = [b"WEBP", &kind[..], &(data.len() as u32).to_le_bytes(), data].concat();
    [b"RIFF", &(body.len() as u32).to_le_bytes()[..], &body].concat()
}

/// Name and bytes of each.
pub fn all() -> Vec<(&'static str, Vec<u8>)> {
    let huge = [(256, 4, 65_000), (257, 4, 65_000), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)];
    let strips =
        [(256, 4, 100), (257, 4, 100), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, u32::MAX), (279, 4, u32::MAX)];
    // 14 bits each of width and height less one, behind the signature byte.
    let lossless = [&[0x2f][..], &(0x3ffe_u32 | (0x3ffe << 14)).to_le_bytes(), &[0; 16]].concat();
    let lossy = [0x10, 0, 0, 0x9d, 0x01, 0x2a, 0xff, 0x3f, 0xff, 0x3f, 0, 0, 0, 0];
    let extended = [&[0x10, 0, 0, 0][..], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff]].concat();
    vec![
        ("PNG of 4 billion pixels", png(65_000, 65_000, 8, 2)),
        ("PNG as large as can be written", png(0x7fff_ffff, 0x7fff_ffff, 16, 6)),
        ("PNG without pixels", png(0, 0, 8, 2)),
        ("PNG in a line", png(1_000_000, 1, 8, 2)),
        ("PNG that ends", png(100, 100, 8, 2)),
        ("JPEG of 4 billion pixels", jpeg(65_000, 65_000)),
        ("JPEG that ends", jpeg(100, 100)),
        ("JPEG without height", jpeg(100, 0)),
        ("GIF of 4 billion pixels", gif(65_535, 65_535)),
        ("GIF without pixels", gif(0, 0)),
        ("BMP of 4 billion pixels", bmp(65_000, 65_000)),
        ("BMP upside down", bmp(65_000, -65_000)),
        ("BMP of a negative width", bmp(-1, 1)),
        ("BMP that ends", bmp(100, 100)),
        ("TIFF of 4 billion pixels", tiff(&huge)),
        ("TIFF with strips beyond all bounds", tiff(&strips)),
        ("TIFF without entries", tiff(&[])),
        ("WebP, lossless, of 268 million pixels", riff(*b"VP8L", &lossless)),
        ("WebP, lossy, of 268 million pixels", riff(*b"VP8 ", &lossy)),
        ("WebP, extended, as large as can be written", riff(*b"VP8X", &extended)),
        ("WebP that ends", riff(*b"VP8L", &[0x2f])),
        ("HEIC", b"\0\0\0\x18ftypheic\0\0\0\0".to_vec()),
        ("SVG", b"<svg xmlns='http://www.w3.org/2000/svg'/>".to_vec()),
        ("PDF", b"%PDF-1.7".to_vec()),
    ]
}
