//! What arrives: a floor after a surge, orders before it has piled up, growth that lasts; and the window by which
//! replicas go.

use super::*;

#[test]
fn after_a_surge_as_many_stay_as_complete_what_arrives() {
    let mut world = World::new(1.0, 20.0);
    world.run(&policy(30), 0.5, 120.0);
    world.run(&policy(30), 6.0, 1200.0);
    // By the load alone, 6 replicas whose places are all taken would do, and whatever came beyond would wait for good.
    assert!((7..=8).contains(&world.ordered), "{}", world.ordered);
    assert!(f64::from(world.ready()) * SLOTS > world.load, "{} wait", world.load);
}

#[test]
fn what_arrives_orders_before_it_has_piled_up() {
    let mut world = World::new(1.0, 60.0);
    world.run(&policy(30), 0.5, 240.0);
    world.run(&policy(30), 6.0, 8.0);
    let by_load = (world.load / 10.0).ceil() as i32;
    // Six complete what arrives, half as many again work off what piles up while they start.
    assert!((8..=9).contains(&world.ordered) && by_load < 6, "{} ordered, {by_load} by the load", world.ordered);
}

#[test]
fn a_single_burst_of_chance_orders_nothing() {
    let mut world = World::new(1.0, 60.0);
    world.run(&policy(30), 2.0, 600.0);
    let before = world.most_ordered;
    // 19 in six seconds where 12 are usual.
    for _ in 0..20 {
        world.run(&policy(30), 19.0 / 6.0, 6.0);
        world.run(&policy(30), 1.9, 60.0);
    }
    assert_eq!(world.most_ordered, before);
}

#[test]
fn without_a_window_of_its_own_replicas_stay_as_long_as_one_takes_to_start() {
    let policy = Policy { down: None, ..policy(10) };
    for (start, least, most) in [(10.0, 60.0, 190.0), (200.0, 200.0, 400.0)] {
        let mut world = World::new(1.0, start);
        world.run(&policy, 0.5, 200.0);
        world.run(&policy, 6.0, 900.0);
        let (ended, peak) = (world.seconds, world.ordered);
        while world.ordered == peak {
            world.run(&policy, 0.5, 2.0);
        }
        let took = world.seconds - ended;
        assert!((least..=most).contains(&took), "{took} s, with {start} s to start");
    }
}

#[test]
fn a_ramp_is_met_before_it_comes() {
    let policy = Policy { down: None, ..policy(20) };
    let mut world = World::new(1.0, 45.0);
    world.run(&policy, 0.5, 300.0);
    let mut short = 0.0;
    while world.seconds < 1500.0 {
        let per_second = 0.5 + (world.seconds - 300.0) / 200.0;
        world.run(&policy, per_second, 2.0);
        short += if f64::from(world.ready()) < per_second { 2.0 } else { 0.0 };
    }
    assert!(short <= 60.0, "{short} s with less than arrives");
}

#[test]
fn a_rise_that_is_no_panic_is_followed_as_soon_as_it_is_no_chance() {
    let mut world = World::new(1.0, 4.0);
    world.run(&policy(30), 8.0, 900.0);
    let before = world.ordered;
    world.run(&policy(30), 14.0, 8.0);
    assert!(before <= 10 && world.ordered >= 15, "{before}, {}", world.ordered);
}

#[test]
fn none_goes_in_a_panic_however_short_the_window() {
    let policy = Policy { down: Some(Duration::ZERO), ..policy(10) };
    let mut world = World::new(1.0, 2.0);
    world.run(&policy, 0.5, 120.0);
    world.run(&policy, 8.0, 20.0);
    let peak = world.ordered;
    assert!(peak >= 8, "{peak}");
    world.run(&policy, 0.0, 40.0);
    assert_eq!(world.ordered, peak);
    world.run(&policy, 0.0, 120.0);
    assert_eq!(world.ordered, 1);
}

#[test]
fn replicas_that_are_to_carry_half_complete_half() {
    let half = Policy { concurrency: Some(4.0), ..policy(30) };
    let mut world = World::new(1.0, 10.0);
    world.run(&policy(30), 1.3, 400.0);
    assert!(world.memory.completion_rate().is_some());
    world.run(&half, 3.0, 900.0);
    assert!((7..=9).contains(&world.ordered), "{}", world.ordered);
}

#[test]
fn growth_that_lasts_is_expected_to_go_on_and_a_step_is_not() {
    let policy = policy(9);
    let expected = |rates: [f64; 3]| {
        let mut memory = Memory::new(Duration::ZERO);
        for tick in 1..=90u32 {
            let arrived = Some(rates[(tick as usize - 1) / 30] * 2.0);
            let sample = Sample { elapsed: TICK, ready: 1, load: Some(1.0), arrived, ..Sample::default() };
            memory.take_in(&policy, sample, tick * TICK);
        }
        let arrivals = memory.arrivals(&policy, policy.stable, 90 * TICK).unwrap();
        (arrivals.lasting, arrivals.expected)
    };
    // A minute until a replica has started, and half a window by which a mean is old.
    assert_eq!(expected([1.0, 2.0, 3.0]), (3.0, 4.5));
    assert_eq!(expected([1.0, 1.0, 3.0]), (3.0, 3.0));
    assert_eq!(expected([1.0, 3.0, 3.0]), (3.0, 3.0));
    assert_eq!(expected([3.0, 2.0, 1.0]), (1.0, 1.0));
}

#[test]
fn ten_times_what_a_replica_holds_has_its_replicas_within_15_seconds_whether_the_rate_is_known_or_not() {
    for known in [false, true] {
        let mut world = World::new(1.0, 60.0);
        world.run(&policy(50), if known { 1.3 } else { 0.1 }, 400.0);
        world.run(&policy(50), 0.1, 900.0);
        assert_eq!((world.ordered, world.memory.completion_rate().is_some()), (1, known));
        // All at once, and who is answered asks again.
        world.run(&policy(50), 40.0, 2.0);
        let began = world.seconds - 2.0;
        while world.seconds < began + 14.0 {
            let again = world.rate * f64::from(world.ready());
            world.run(&policy(50), again, 2.0);
        }
        // 80 / (8 + 2); and of what one moment brought little more is made.
        assert!((8..=10).contains(&world.ordered), "known: {known}, {}", world.ordered);
    }
}
