//! What rounds of answers come to: differences, freshness, silence.

use super::*;

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[expect(clippy::unnecessary_wraps, reason = "stands beside None in every list")]
fn reading(running: f64, waiting: f64, counter: f64) -> Option<Reading> {
    let (generated, counter) = (Some(10.0 * counter), Some(counter));
    let (arrived, refused, finished) = (counter, counter, counter);
    Some(Reading { running, waiting, capacity: 4.0, arrived, refused, finished, generated })
}

fn round(readings: &[Option<Reading>]) -> Vec<PodAnswer> {
    let answer = |(i, reading): (usize, &Option<Reading>)| PodAnswer {
        pod: format!("p{i}"),
        ready: true,
        reading: reading.clone(),
    };
    readings.iter().enumerate().map(answer).collect()
}

#[test]
fn counters_are_compared_with_the_reading_before_and_survive_a_restart() {
    let mut tracker = Tracker::default();
    assert_eq!(tracker.fold(&round(&[reading(1.0, 0.0, 100.0)]), at(0)).0.arrived, Some(0.0));
    assert_eq!(tracker.fold(&round(&[reading(1.0, 0.0, 104.0)]), at(2)).0.arrived, Some(4.0));
    let (sample, health) = tracker.fold(&round(&[reading(1.0, 0.0, 3.0)]), at(4));
    assert_eq!((sample.arrived, sample.refused, sample.load), (Some(3.0), Some(3.0), Some(1.0)));
    assert_eq!((sample.elapsed, health), (at(2), Health::Fresh));
}

#[test]
fn what_came_during_a_silence_is_spread_over_it() {
    let mut tracker = Tracker::default();
    with_gateways(&mut tracker, &[reading(1.0, 0.0, 0.0)], &gateway(0.0, 100.0), at(0));
    for seconds in (2..300).step_by(2) {
        let nobody = vec![GatewayAnswer { reading: None, ..gateway(0.0, 0.0).remove(0) }];
        with_gateways(&mut tracker, &[None], &nobody, at(seconds));
    }
    let (sample, _) = with_gateways(&mut tracker, &[reading(1.0, 0.0, 150.0)], &gateway(0.0, 400.0), at(300));
    assert_eq!((sample.arrived, sample.refused), (Some(3.0), Some(1.0)), "a surge of 450 requests was none");
}

#[test]
fn completions_count_only_while_requests_wait_and_once_each_place_has_completed_one() {
    let mut tracker = Tracker::default();
    tracker.fold(&round(&[reading(4.0, 2.0, 0.0), reading(1.0, 0.0, 0.0)]), at(0));
    let mut add = |first: Option<Reading>, second: Option<Reading>, seconds| {
        let (sample, _) = tracker.fold(&round(&[first, second]), at(seconds));
        assert_eq!(sample.busy_tokens, 10.0 * sample.finished, "ten tokens an answer");
        (sample.finished, sample.busy_seconds)
    };
    assert_eq!(add(reading(4.0, 1.0, 4.0), reading(1.0, 0.0, 9.0), 2), (0.0, 0.0), "a first round of the four places");
    assert_eq!(add(reading(4.0, 1.0, 10.0), reading(1.0, 0.0, 20.0), 4), (6.0, 2.0));
    assert_eq!(
        add(reading(4.0, 1.0, 10.0), reading(1.0, 0.0, 20.0), 6),
        (0.0, 0.0),
        "it may be about to complete them"
    );
    assert_eq!(add(reading(4.0, 1.0, 14.0), reading(1.0, 0.0, 20.0), 8), (4.0, 4.0), "and then the time counts");
    assert_eq!(add(reading(4.0, 0.0, 15.0), reading(1.0, 0.0, 20.0), 10), (0.0, 0.0), "nothing waits");
    assert_eq!(add(reading(4.0, 1.0, 16.0), reading(1.0, 0.0, 20.0), 12), (0.0, 0.0));
    assert_eq!(add(reading(4.0, 1.0, 17.0), reading(1.0, 0.0, 20.0), 14), (0.0, 0.0), "and the places begin anew");
}

#[test]
fn tokens_count_with_the_completion_that_follows_them() {
    let mut tracker = Tracker::default();
    let mut add = |finished: f64, generated: f64, seconds| {
        let waits = reading(4.0, 1.0, finished).map(|reading| Reading { generated: Some(generated), ..reading });
        let (sample, _) = tracker.fold(&round(&[waits]), at(seconds));
        (sample.finished, sample.busy_seconds, sample.busy_tokens)
    };
    add(0.0, 0.0, 0);
    assert_eq!(add(4.0, 40.0, 2), (0.0, 0.0, 0.0), "a first round of the four places");
    assert_eq!(add(4.0, 70.0, 4), (0.0, 0.0, 0.0));
    assert_eq!(add(8.0, 80.0, 6), (4.0, 4.0, 40.0));
}

#[test]
fn computing_time_counts_once_a_replica_has_completed_something() {
    let mut tracker = Tracker::default();
    let mut add = |counter, seconds| {
        let (sample, _) = tracker.fold(&round(&[reading(2.0, 0.0, counter)]), at(seconds));
        assert_eq!(sample.tokens, 10.0 * sample.completed, "ten tokens an answer");
        (sample.completed, sample.computed_seconds)
    };
    assert_eq!(add(7.0, 0), (0.0, 0.0), "where the counter starts");
    assert_eq!(add(7.0, 2), (0.0, 0.0));
    assert_eq!(add(8.0, 4), (0.0, 0.0), "a gateway's picture");
    assert_eq!(add(8.0, 6), (0.0, 0.0), "which says nothing of users' requests");
    assert_eq!(add(10.0, 8), (0.0, 0.0));
    assert_eq!(add(13.0, 10), (3.0, 4.0));
}

#[test]
fn a_silent_pod_keeps_its_last_load_forbids_shrinking_and_is_given_up_after_a_minute() {
    let mut tracker = Tracker::default();
    tracker.fold(&round(&[reading(1.0, 1.0, 0.0), reading(3.0, 0.0, 0.0)]), at(0));
    let (sample, health) = tracker.fold(&round(&[reading(1.0, 1.0, 0.0), None]), at(6));
    assert_eq!((sample.load, sample.silent, health), (Some(5.0), false, Health::Fresh));
    let (sample, health) = tracker.fold(&round(&[reading(1.0, 1.0, 0.0), None]), at(8));
    assert_eq!((sample.load, sample.silent, sample.ready), (Some(5.0), true, 2));
    assert_eq!(health, Health::Stale(vec!["p1".to_owned()]));
    let (sample, health) = tracker.fold(&round(&[reading(1.0, 1.0, 0.0), None]), at(61));
    assert_eq!((sample.load, sample.silent, sample.ready), (Some(2.0), false, 1));
    assert_eq!(health, Health::Stale(vec!["p1".to_owned()]));
}

#[test]
fn what_a_replica_can_compute_is_the_mean_of_what_those_say_that_count() {
    let holds = |capacity| reading(1.0, 0.0, 0.0).map(|reading| Reading { capacity, ..reading });
    let mut tracker = Tracker::default();
    assert_eq!(tracker.fold(&round(&[None, None]), at(0)).0.capacity, None);
    assert_eq!(tracker.fold(&round(&[holds(4.0), holds(8.0)]), at(2)).0.capacity, Some(6.0));
    assert_eq!(tracker.fold(&round(&[holds(4.0), None]), at(4)).0.capacity, Some(6.0), "one lost answer is no news");
    assert_eq!(tracker.fold(&round(&[holds(4.0), None]), at(64)).0.capacity, Some(4.0), "the other counts as failed");
}

#[test]
fn when_all_are_silent_the_load_is_unknown_for_as_long_as_it_lasts() {
    let mut tracker = Tracker::default();
    tracker.fold(&round(&[reading(1.0, 1.0, 0.0)]), at(0));
    for t in [8, 100, 10_000] {
        let (sample, health) = tracker.fold(&round(&[None]), at(t));
        assert_eq!((sample.load, sample.silent), (None, true), "{t}");
        assert_eq!(health, Health::Stale(vec!["p0".to_owned()]));
    }
}

#[test]
fn a_pod_that_has_not_answered_yet_forbids_shrinking() {
    let mut tracker = Tracker::default();
    let (sample, health) = tracker.fold(&round(&[reading(1.0, 1.0, 0.0), None]), at(0));
    assert_eq!((sample.load, sample.silent, sample.ready, health), (Some(2.0), true, 2, Health::Fresh));
    assert_eq!(Tracker::default().fold(&[], at(0)).1, Health::Pending);
}

#[test]
fn a_pod_with_too_much_to_do_to_be_ready_is_load_and_its_silence_no_matter() {
    let mut tracker = Tracker::default();
    let mut pods = round(&[reading(1.0, 0.0, 0.0), reading(4.0, 9.0, 0.0)]);
    pods[1].ready = false;
    let (sample, health) = tracker.fold(&pods, at(0));
    assert_eq!((sample.load, sample.ready, sample.silent, health), (Some(14.0), 1, false, Health::Fresh));
    pods[1].reading = None;
    let (sample, health) = tracker.fold(&pods, at(30));
    assert_eq!((sample.load, sample.silent, health), (Some(1.0), false, Health::Fresh));
    pods[0].ready = false;
    let (sample, health) = tracker.fold(&pods, at(32));
    assert_eq!((sample.load, sample.ready, sample.silent, health), (Some(1.0), 0, true, Health::Pending));
}

fn asked(answer: QueryAnswer) -> QueryRound {
    QueryRound { ready: 2, pods: 2, answer, direct: None }
}

fn failed() -> QueryRound {
    asked(QueryAnswer::Failed("why".to_owned()))
}

fn absent() -> QueryRound {
    asked(QueryAnswer::Absent("no series".to_owned()))
}

#[test]
fn a_silent_prometheus_is_unknown_load_and_one_lost_answer_no_news() {
    let mut tracker = Tracker::default();
    assert_eq!(tracker.fold_query(&failed(), at(0)).1, Health::Pending);
    let (sample, health) = tracker.fold_query(&asked(QueryAnswer::Load(7.0)), at(2));
    assert_eq!((sample.load, sample.silent, health), (Some(7.0), false, Health::Fresh));
    for seconds in [4, 8] {
        let (sample, health) = tracker.fold_query(&failed(), at(seconds));
        assert_eq!((sample.load, sample.silent, health), (Some(7.0), false, Health::Fresh), "as long as it is fresh");
    }
    let (sample, _) = tracker.fold_query(&absent(), at(8));
    assert_eq!((sample.load, sample.silent), (None, true), "series that are gone are not what they were");
    for seconds in [9, 10_000] {
        let (sample, health) = tracker.fold_query(&failed(), at(seconds));
        assert_eq!(health, Health::Stale(vec!["Prometheus (why)".to_owned()]));
        assert_eq!((sample.load, sample.silent), (None, true), "for as long as it lasts");
    }
}

#[test]
fn a_missing_series_is_never_zero_and_a_new_replica_s_is_awaited() {
    let mut tracker = Tracker::default();
    for seconds in [0, 30, 60] {
        let (sample, health) = tracker.fold_query(&absent(), at(seconds));
        assert_eq!((sample.load, sample.silent, health), (None, true, Health::Pending), "{seconds}");
    }
    assert!(matches!(tracker.fold_query(&absent(), at(62)).1, Health::Stale(_)), "it should be there by now");
    assert_eq!(tracker.fold_query(&asked(QueryAnswer::Load(0.0)), at(64)).1, Health::Fresh);
    assert!(matches!(tracker.fold_query(&absent(), at(72)).1, Health::Stale(_)), "it was there before");
}

#[test]
fn without_replicas_prometheus_has_no_series_and_the_gateways_know_the_load() {
    let mut tracker = Tracker::default();
    tracker.fold_query(&asked(QueryAnswer::Load(1.0)), at(0));
    let asleep = QueryRound { ready: 0, pods: 0, ..absent() };
    let mut add = |query: &QueryRound, held, seconds| {
        let (mut sample, mut health) = tracker.fold_query(query, at(seconds));
        tracker.add_gateways(&gateway(held, 0.0), (&mut sample, &mut health), at(seconds));
        (sample.load, health)
    };
    assert_eq!(add(&asleep, 0.0, 100), (Some(0.0), Health::Fresh));
    assert_eq!(add(&asleep, 3.0, 102), (Some(3.0), Health::Fresh));
    let starting = QueryRound { ready: 1, pods: 1, ..absent() };
    assert_eq!(add(&starting, 0.0, 104), (None, Health::Pending), "its series are awaited anew");
    let broken = QueryRound { ready: 0, pods: 0, ..failed() };
    add(&broken, 0.0, 200);
    assert!(matches!(add(&broken, 0.0, 208).1, Health::Stale(_)), "a Prometheus that is gone is told");
}

#[test]
fn beside_prometheus_the_pods_know_what_came_straight_to_them() {
    let mut tracker = Tracker::default();
    let mut add = |pods: &[Option<Reading>], seconds| {
        let direct = Some(round(pods));
        let query = QueryRound { ready: 1, pods: 1, answer: QueryAnswer::Load(0.0), direct };
        tracker.fold_query(&query, at(seconds))
    };
    assert_eq!(add(&[reading(0.0, 0.0, 5.0)], 0).0.arrived, Some(0.0));
    let (sample, health) = add(&[reading(0.0, 0.0, 6.0)], 2);
    assert_eq!((sample.arrived, sample.unheard, sample.silent, health), (Some(1.0), false, false, Health::Fresh));
    let (sample, health) = add(&[None], 10);
    assert_eq!((sample.load, sample.unheard, sample.silent), (Some(0.0), true, false));
    assert_eq!(health, Health::Stale(vec!["p0".to_owned()]), "it says why the last replica stays");
}

fn gateway(held: f64, arrived: f64) -> Vec<GatewayAnswer> {
    let reading = Some(GatewayReading { held, arrived, refused: 0.0 });
    vec![GatewayAnswer { gateway: "g0".to_owned(), ready: true, reading }]
}

fn with_gateways(
    tracker: &mut Tracker,
    pods: &[Option<Reading>],
    gateways: &[GatewayAnswer],
    now: Duration,
) -> (Sample, Health) {
    let (mut sample, mut health) = tracker.fold(&round(pods), now);
    tracker.add_gateways(gateways, (&mut sample, &mut health), now);
    (sample, health)
}

#[test]
fn what_gateways_hold_is_load_and_what_arrives_there_is_added() {
    let mut tracker = Tracker::default();
    with_gateways(&mut tracker, &[reading(1.0, 1.0, 10.0)], &gateway(3.0, 100.0), at(0));
    let (sample, health) = with_gateways(&mut tracker, &[reading(1.0, 1.0, 11.0)], &gateway(4.0, 105.0), at(2));
    assert_eq!((sample.load, sample.arrived, sample.silent, health), (Some(6.0), Some(6.0), false, Health::Fresh));
    // A gateway that restarted counts from 0.
    let (sample, _) = with_gateways(&mut tracker, &[reading(1.0, 1.0, 11.0)], &gateway(0.0, 2.0), at(4));
    assert_eq!(sample.arrived, Some(2.0));
}

#[test]
fn without_replicas_the_gateways_know_the_load() {
    let mut tracker = Tracker::default();
    let (sample, health) = with_gateways(&mut tracker, &[], &gateway(0.0, 7.0), at(0));
    assert_eq!((sample.load, sample.arrived, health), (Some(0.0), Some(0.0), Health::Fresh));
    let (sample, _) = with_gateways(&mut tracker, &[], &gateway(2.0, 9.0), at(2));
    assert_eq!((sample.load, sample.arrived), (Some(2.0), Some(2.0)));
    let (sample, _) = with_gateways(&mut tracker, &[], &[], at(4));
    assert_eq!((sample.load, sample.arrived), (None, None), "nobody to ask");
}

#[test]
fn a_silent_gateway_forbids_shrinking_until_it_counts_as_failed() {
    let mut tracker = Tracker::default();
    let mut gateways = gateway(0.0, 0.0);
    gateways.push(GatewayAnswer { gateway: "g1".to_owned(), ready: true, reading: None });
    let pods = [reading(1.0, 0.0, 0.0)];
    let (sample, _) = with_gateways(&mut tracker, &pods, &gateways, at(0));
    assert!(sample.silent, "it has not answered yet");
    let (sample, health) = with_gateways(&mut tracker, &pods, &gateways, at(10));
    assert!(sample.silent);
    assert_eq!(health, Health::Stale(vec!["gateway g1".to_owned()]));
    let (sample, health) = with_gateways(&mut tracker, &pods, &gateways, at(62));
    assert_eq!((sample.silent, health), (false, Health::Fresh));
    gateways[0].reading = None;
    let (sample, _) = with_gateways(&mut tracker, &pods, &gateways, at(64));
    assert!(!sample.silent && sample.arrived.is_some(), "one lost answer is no news");
}

#[test]
fn silent_pods_do_not_hide_what_is_held() {
    let mut tracker = Tracker::default();
    let (sample, _) = with_gateways(&mut tracker, &[None], &gateway(5.0, 0.0), at(0));
    assert_eq!((sample.load, sample.silent), (Some(5.0), true));
    let (sample, _) = with_gateways(&mut tracker, &[None], &gateway(0.0, 0.0), at(2));
    assert_eq!(sample.load, None);
}
