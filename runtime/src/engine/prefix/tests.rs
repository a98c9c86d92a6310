//! Equal beginnings have equal hashes, and nothing else has.

use super::*;

const IMAGE: u32 = 9;

fn image(seed: f32, tokens: usize) -> Arc<PreparedImage> {
    let pixels = vec![seed];
    let key = ImageKey::of_pixels(&pixels);
    Arc::new(PreparedImage { tiles: 1, height: 1, width: 1, pixels: pixels.into(), tokens, kept: None, key })
}

/// Ids of which 9 stands for as many rows as the next picture has.
fn content(ids: &[u32], images: &[Arc<PreparedImage>], long: bool) -> Result<Content, Failure> {
    let mut rows = images.iter().map(|image| image.tokens);
    let ids = ids.iter().flat_map(|id| {
        let times = if *id == IMAGE { rows.next().unwrap_or(1) } else { 1 };
        std::iter::repeat_n(*id, times)
    });
    let mut prompt = Prompt { ids: ids.collect(), image_token: IMAGE, images: images.to_vec() };
    Content::new(&mut prompt, 100, long)
}

fn hashes(ids: &[u32], images: &[Arc<PreparedImage>]) -> Vec<BlockHash> {
    content(ids, images, false).unwrap().hashes().to_vec()
}

#[test]
fn a_block_is_known_by_itself_and_all_before_it() {
    let ids: Vec<u32> = (10..95).collect();
    let whole = hashes(&ids, &[]);
    assert_eq!(whole.len(), 2);
    assert_eq!(hashes(&ids[..40], &[]), whole[..1]);
    let mut other = ids.clone();
    other[40] = 1;
    assert_eq!(hashes(&other, &[])[0], whole[0]);
    assert_ne!(hashes(&other, &[])[1], whole[1]);
    other = ids.clone();
    other[3] = 1;
    assert!(hashes(&other, &[]).iter().zip(&whole).all(|(a, b)| a != b));
    let long = content(&ids, &[], true).unwrap();
    assert!(long.hashes().iter().zip(&whole).all(|(a, b)| a != b));
}

#[test]
fn generated_tokens_are_hashed_as_those_of_a_prompt() {
    let ids: Vec<u32> = (10..80).collect();
    let mut grown = content(&ids[..20], &[], false).unwrap();
    ids[20..].iter().for_each(|id| grown.push(*id));
    assert_eq!(grown.hashes(), hashes(&ids, &[]));
}

#[test]
fn pictures_are_told_apart_in_every_block_that_they_reach() {
    let ids: Vec<u32> = [1, 2, 3, IMAGE].into_iter().chain(40..90).collect();
    let [a, b] = [image(1.0, 70), image(2.0, 70)];
    let (of_a, of_b) = (hashes(&ids, &[Arc::clone(&a)]), hashes(&ids, &[b]));
    assert_eq!((of_a.len(), hashes(&ids, &[image(1.0, 70)])), (3, of_a.clone()));
    assert!(of_a.iter().zip(&of_b).all(|(a, b)| a != b));
    // The same rows further back are other contents: two pictures side by side, cut elsewhere.
    let side_by_side = |first: usize, second: usize| hashes(&[IMAGE, IMAGE], &[image(1.0, first), image(2.0, second)]);
    assert_ne!(side_by_side(10, 60)[1], side_by_side(20, 50)[1]);
}

#[test]
fn rows_of_pictures_are_found_by_position() {
    let [a, b] = [image(1.0, 5), image(2.0, 3)];
    let content = content(&[1, IMAGE, 2, IMAGE, 3], &[Arc::clone(&a), Arc::clone(&b)], false).unwrap();
    let rows = |positions: Range<usize>| content.rows_at(&positions).collect::<Vec<_>>();
    let of = |image: &Arc<PreparedImage>, at, rows| PictureRows { key: image.key, at, rows };
    assert_eq!(rows(0..11), [of(&a, 1, 0..5), of(&b, 7, 0..3)]);
    assert_eq!(rows(4..8), [of(&a, 0, 3..5), of(&b, 3, 0..1)]);
    assert_eq!(rows(6..7), []);
}

#[test]
fn prompts_that_do_not_fit_their_pictures_or_the_vocabulary_are_refused() {
    let why = |ids: &[u32], images: &[Arc<PreparedImage>]| {
        let mut prompt = Prompt { ids: ids.to_vec(), image_token: IMAGE, images: images.to_vec() };
        Content::new(&mut prompt, 100, false).unwrap_err().to_string()
    };
    assert!(why(&[1, 100], &[]).contains("100"));
    assert!(why(&[1, IMAGE], &[]).contains("1 image tokens"));
    assert!(why(&[IMAGE, IMAGE], &[image(1.0, 3)]).contains("3 rows"));
    assert!(why(&[IMAGE, 1, IMAGE], &[image(1.0, 2)]).contains("stand together"));
    assert!(why(&[IMAGE], &[image(1.0, 1), image(1.0, 0)]).contains("stand together"));
}
