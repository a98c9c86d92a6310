//! The choice of a pod: bounds, affinity, and what coming and going pods change.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::request::affinity::hash;

const NOW: Duration = Duration::from_secs(100);

fn endpoints(names: impl IntoIterator<Item = usize>) -> Vec<Endpoint> {
    let address = |n: usize| SocketAddr::from(([10, 0, 0, u8::try_from(n).unwrap()], 8000));
    names.into_iter().map(|n| Endpoint { pod: format!("pod-{n}"), address: address(n), ready: true }).collect()
}

fn pods(names: impl IntoIterator<Item = usize>) -> Pods {
    let mut pods = Pods::default();
    pods.update(&endpoints(names));
    pods
}

#[expect(clippy::unnecessary_wraps, reason = "stands where None may stand")]
fn picture(number: u64) -> Option<Affinity> {
    Some(Affinity(hash(&number.to_le_bytes())))
}

fn take(pods: &mut Pods, affinity: Option<Affinity>) -> Option<String> {
    pods.take(8, affinity, &[], NOW).map(|(name, _)| name)
}

#[test]
fn without_affinity_the_least_busy_pod_is_taken_and_equals_take_turns() {
    let mut pods = pods(0..3);
    let mut counts = HashMap::new();
    for _ in 0..12 {
        *counts.entry(take(&mut pods, None).unwrap()).or_insert(0) += 1;
    }
    assert!(counts.values().all(|n| *n == 4), "{counts:?}");
    let mut alone = super::tests::pods(0..3);
    let mut firsts = HashMap::new();
    for _ in 0..60 {
        let name = take(&mut alone, None).unwrap();
        alone.give_back(&name, true, NOW);
        *firsts.entry(name).or_insert(0) += 1;
    }
    assert_eq!(firsts.len(), 3, "{firsts:?}");
}

#[test]
fn the_same_picture_goes_to_the_same_pod_whichever_gateway_asks() {
    let (mut one, mut other) = (pods(0..5), pods([4, 2, 0, 1, 3]));
    // It has answered something else before.
    let before = take(&mut other, None).unwrap();
    other.give_back(&before, true, NOW);
    for number in 0..50 {
        let first = take(&mut one, picture(number)).unwrap();
        one.give_back(&first, true, NOW);
        let second = take(&mut other, picture(number)).unwrap();
        other.give_back(&second, true, NOW);
        assert_eq!(first, second);
    }
}

#[test]
fn a_pod_that_goes_moves_only_its_own_pictures() {
    let (mut five, mut four) = (pods(0..5), pods(0..4));
    for number in 0..200 {
        let before = take(&mut five, picture(number)).unwrap();
        five.give_back(&before, true, NOW);
        let after = take(&mut four, picture(number)).unwrap();
        four.give_back(&after, true, NOW);
        assert!(before == after || before == "pod-4");
    }
}

#[test]
fn full_blocked_tried_and_leaving_pods_are_passed_over() {
    let mut pods = pods(0..2);
    for _ in 0..2 {
        assert!(pods.take(1, None, &[], NOW).is_some());
    }
    assert_eq!(pods.take(1, None, &[], NOW), None);
    pods.give_back("pod-0", true, NOW);
    pods.block("pod-0", NOW + Duration::from_secs(1));
    assert_eq!(pods.take(1, None, &[], NOW), None);
    assert_eq!(pods.next_opening(NOW), Some(NOW + Duration::from_secs(1)));
    assert_eq!(pods.take(1, None, &[], NOW + Duration::from_secs(1)).unwrap().0, "pod-0");
    pods.give_back("pod-1", true, NOW);
    assert_eq!(pods.take(2, None, &["pod-1".to_owned()], NOW + Duration::from_secs(1)).unwrap().0, "pod-0");
    assert_eq!(pods.take(2, None, &["pod-0".to_owned(), "pod-1".to_owned()], NOW).unwrap().0, "pod-1");
    let mut leaving = endpoints(0..2);
    leaving[1].ready = false;
    pods.update(&leaving);
    assert_eq!((pods.ready(), pods.in_flight()), (1, 3));
    pods.update(&[]);
    assert_eq!((pods.ready(), pods.in_flight()), (0, 3));
    pods.give_back("pod-1", false, NOW);
    assert_eq!(pods.in_flight(), 2);
}

#[test]
fn a_request_is_suited_while_the_pod_of_its_picture_has_room() {
    let mut pods = pods(0..3);
    assert!(pods.suits(1, None, NOW) && pods.suits(1, picture(1), NOW) && pods.has_room(1, NOW));
    let best = take(&mut pods, picture(1)).unwrap();
    assert!(!pods.suits(1, picture(1), NOW) && pods.suits(2, picture(1), NOW) && pods.has_room(1, NOW));
    pods.block(&best, NOW + Duration::from_secs(1));
    assert!(pods.suits(1, picture(1), NOW), "the next best stands in for one that rests");
    for pod in ["pod-0", "pod-1", "pod-2"] {
        pods.block(pod, NOW + Duration::from_secs(1));
    }
    assert!(!pods.has_room(9, NOW) && !pods.suits(9, picture(1), NOW));
}

#[test]
fn an_answer_shows_that_a_full_pod_has_room_again() {
    let mut pods = pods(0..1);
    take(&mut pods, None);
    take(&mut pods, None);
    pods.block("pod-0", NOW + Duration::from_secs(60));
    pods.give_back("pod-0", false, NOW);
    assert_eq!(take(&mut pods, None), None);
    pods.give_back("pod-0", true, NOW);
    assert!(take(&mut pods, None).is_some());
}

/// Asks `count` times, each for one picture of `pictures` in turn and answered before the next; returns how many each
/// pod got.
fn one_after_another(pods: &mut Pods, pictures: &[u64], count: usize) -> HashMap<String, usize> {
    let mut got = HashMap::new();
    for number in 0..count {
        let name = take(pods, picture(pictures[number % pictures.len()])).unwrap();
        pods.give_back(&name, true, NOW);
        *got.entry(name).or_default() += 1;
    }
    got
}

#[test]
fn the_questions_of_a_conversation_stay_together_at_first_and_a_popular_picture_does_not_take_one_pod_alone() {
    let mut pods = pods(0..4);
    assert_eq!(one_after_another(&mut pods, &[7], 5).len(), 1);
    let got = one_after_another(&mut pods, &[7], 4000);
    let most = *got.values().max().unwrap();
    // What it begins with and what it remembers may be above the mean once more.
    assert!(most <= 1250 + 16, "{got:?}");
    assert!(most > 1150, "the favourite still has its own pod first: {got:?}");
}

#[test]
fn a_pod_that_comes_gets_its_share_and_not_the_share_of_all() {
    let mut pods = pods(0..3);
    one_after_another(&mut pods, &(0..40).collect::<Vec<_>>(), 1000);
    pods.update(&endpoints(0..4));
    let first = one_after_another(&mut pods, &(0..40).collect::<Vec<_>>(), 12);
    assert!(first.get("pod-3").is_none_or(|got| *got <= 8), "it is stormed: {first:?}");
    let got = one_after_another(&mut pods, &(0..40).collect::<Vec<_>>(), 400);
    assert!((60..=130).contains(&got["pod-3"]), "{got:?}");
}

#[test]
fn pods_compute_alike_however_long_the_questions_about_a_picture_take() {
    let mut pods = pods(0..2);
    let of = |pods: &mut Pods, pod: &str| {
        (0..100).find(|number| {
            let name = take(pods, picture(*number)).unwrap();
            pods.give_back(&name, true, NOW);
            name == pod
        })
    };
    let (slow, quick) = (of(&mut pods, "pod-0").unwrap(), of(&mut pods, "pod-1").unwrap());
    let (mut now, mut busy) = (NOW, HashMap::from([("pod-0".to_owned(), 0.0), ("pod-1".to_owned(), 0.0)]));
    for _ in 0..200 {
        for (number, milliseconds) in [(slow, 1000), (quick, 100)] {
            let name = pods.take(8, picture(number), &[], now).unwrap().0;
            now += Duration::from_millis(milliseconds);
            pods.give_back(&name, true, now);
            *busy.get_mut(&name).unwrap() += milliseconds as f64;
        }
    }
    let most = busy.values().copied().fold(0.0, f64::max) / (busy.values().sum::<f64>() / 2.0);
    assert!(most < 1.25 + 0.2 + 0.05, "what is little is not worth a move: {busy:?}");
}

proptest! {
    /// Of every load, and every mixture of pictures, popular ones among them.
    #[test]
    fn no_pod_takes_more_than_its_bound(
        count in 1_usize..9,
        asked in proptest::collection::vec((0_u64..6, any::<bool>(), 0_usize..64), 1..200),
    ) {
        let mut pods = pods(0..count);
        let mut running: Vec<String> = Vec::new();
        for (number, with_picture, leaves) in asked {
            if leaves < running.len() / 2 {
                pods.give_back(&running.swap_remove(leaves), true, NOW);
            }
            let name = pods.take(1000, picture(number).filter(|_| with_picture), &[], NOW).unwrap().0;
            running.push(name.clone());
            let load = running.iter().filter(|n| **n == name).count();
            let bound = (1.25 * running.len() as f64 / count as f64).ceil() as usize;
            prop_assert!(load <= bound.max(1), "{load} of {} on {name} of {count}", running.len());
        }
        prop_assert_eq!(pods.in_flight() as usize, running.len());
    }
}
