//! The desk with many requests at once: bounds, order, wakes, and that nothing is ever lost or counted twice.

use std::net::SocketAddr;

use futures::future::join_all;

use super::*;
use crate::{
    hold::Bounds,
    routes::{Route, Standing},
};

const WAIT: Duration = Duration::from_secs(60);

fn id() -> ModelId {
    ModelId { namespace: "shop".to_owned(), name: "tiny".to_owned() }
}

fn route(standing: Standing, count: usize) -> Route {
    Route {
        id: id(),
        created: 0,
        aliases: Vec::new(),
        standing,
        window: 2,
        bounds: Bounds { count, bytes: 1000, wait: WAIT },
        max_tokens: None,
        migrates: true,
        drain: Duration::ZERO,
    }
}

fn replicas(count: u8) -> Endpoints {
    let endpoint =
        |n: u8| Endpoint { pod: format!("pod-{n}"), address: SocketAddr::from(([10, 0, 0, n], 8000)), ready: true };
    [(id(), (0..count).map(endpoint).collect())].into()
}

fn desk(standing: Standing, count: usize) -> Arc<Desk> {
    let desk = Desk::new(Metrics::new().unwrap());
    desk.update_routes(&Catalogue::new([route(standing, count)]));
    desk
}

fn asking(desk: &Desk) -> Asking {
    Asking { model: id(), place: desk.place(), bytes: 10, affinity: None, tried: Vec::new() }
}

fn ask(desk: &Arc<Desk>) -> Result<Turn, Refusal> {
    desk.ask(asking(desk), false)
}

fn ticket(desk: &Arc<Desk>) -> Ticket {
    match ask(desk) {
        Ok(Turn::Later(ticket)) => ticket,
        other => panic!("it should wait: {other:?}"),
    }
}

fn lease(desk: &Arc<Desk>) -> Lease {
    match ask(desk) {
        Ok(Turn::Now(lease)) => lease,
        other => panic!("it should go at once: {other:?}"),
    }
}

fn counts(desk: &Desk) -> (usize, u32) {
    let all = desk.counts();
    (all[0].1, all[0].2)
}

#[tokio::test]
async fn a_replica_is_given_no_more_than_its_window_and_the_rest_goes_in_order() {
    let desk = desk(Standing::Awake, 100);
    let tickets: Vec<_> = (0..5).map(|_| ticket(&desk)).collect();
    assert_eq!(counts(&desk), (5, 0));
    desk.update_endpoints(&replicas(1));
    assert_eq!(counts(&desk), (3, 2), "the window of one replica");
    let mut order = Vec::new();
    let mut waiting: Vec<_> = tickets.into_iter().map(|t| Box::pin(t.wait())).collect();
    for expected in (0..5).rev() {
        let (lease, _, rest) = futures::future::select_all(waiting).await;
        waiting = rest;
        order.push(lease.unwrap());
        order.remove(0).answered();
        assert!(counts(&desk).1 <= 2);
        assert_eq!(waiting.len(), expected);
    }
    assert_eq!(counts(&desk), (0, 0));
}

#[tokio::test]
async fn a_newcomer_does_not_overtake_those_that_wait() {
    let desk = desk(Standing::Awake, 100);
    desk.update_endpoints(&replicas(1));
    let running = [lease(&desk), lease(&desk)];
    let first = ticket(&desk);
    let second = ticket(&desk);
    assert_eq!(desk.outlook(&id(), second.place).unwrap().ahead, 1);
    drop(running);
    assert_eq!(counts(&desk), (0, 2));
    assert!(matches!(ask(&desk), Ok(Turn::Later(_))));
    let (first, second) = futures::join!(first.wait(), second.wait());
    assert!(first.is_ok() && second.is_ok());
}

#[tokio::test]
async fn beyond_the_bounds_requests_are_refused_and_each_gateway_takes_its_share() {
    let desk = desk(Standing::Asleep, 4);
    desk.update_gateways(2);
    let held = [ticket(&desk), ticket(&desk)];
    let refused = ask(&desk).unwrap_err();
    let expected = Refusal::QueueFull { held: 2, waking: true, retry_after_seconds: 10 };
    assert_eq!(refused, expected);
    desk.update_gateways(1);
    drop(ticket(&desk));
    let large = Asking { bytes: 990, ..asking(&desk) };
    assert!(matches!(desk.ask(large.clone(), false), Err(Refusal::QueueFull { .. })));
    assert!(matches!(desk.ask(large, true), Ok(Turn::Later(_))), "one that was let in before keeps its right");
    drop(held);
    assert_eq!(counts(&desk), (0, 0));
}

#[tokio::test]
async fn who_leaves_frees_the_place_before_and_after_being_told() {
    let desk = desk(Standing::Awake, 2);
    let (first, second) = (ticket(&desk), ticket(&desk));
    assert!(ask(&desk).is_err());
    drop(first);
    let third = ticket(&desk);
    desk.update_endpoints(&replicas(1));
    assert_eq!(counts(&desk), (0, 2));
    drop(second);
    assert_eq!(counts(&desk), (0, 1));
    drop(third.wait().await.unwrap());
    assert_eq!(counts(&desk), (0, 0));
}

#[tokio::test]
async fn nobody_waits_longer_than_allowed() {
    let desk = desk(Standing::Awake, 10);
    let mut short = route(Standing::Awake, 10);
    short.bounds.wait = Duration::from_millis(30);
    desk.update_routes(&Catalogue::new([short]));
    let refused = ticket(&desk).wait().await.unwrap_err();
    assert!(matches!(refused, Refusal::Waited { retry_after_seconds: 1..=60, .. }), "{refused:?}");
    assert_eq!(counts(&desk), (0, 0));
}

#[tokio::test]
async fn those_that_wait_are_told_when_the_model_cannot_start_is_off_or_gone() {
    let failed = Standing::Failed { reason: "WeightsCorrupt".to_owned(), message: "fetch again".to_owned() };
    let told = Refusal::CannotStart { reason: "WeightsCorrupt".to_owned(), message: "fetch again".to_owned() };
    for (standing, expected) in [(failed, told), (Standing::Off, Refusal::SwitchedOff)] {
        let desk = desk(Standing::Awake, 10);
        let waiting = [ticket(&desk), ticket(&desk)].map(Ticket::wait);
        desk.update_routes(&Catalogue::new([route(standing, 10)]));
        for refused in join_all(waiting).await {
            assert_eq!(refused.unwrap_err(), expected);
        }
        assert_eq!(ask(&desk).unwrap_err(), expected, "and so is the next");
        desk.update_endpoints(&replicas(1));
        drop(lease(&desk));
    }
    let desk = desk(Standing::Awake, 10);
    let waiting = ticket(&desk).wait();
    desk.update_routes(&Catalogue::default());
    assert_eq!(waiting.await.unwrap_err(), Refusal::Gone);
    assert_eq!(ask(&desk).unwrap_err(), Refusal::Gone);
}

#[tokio::test]
async fn a_sleeping_model_is_woken_once_in_a_while_and_only_for_somebody() {
    let desk = desk(Standing::Asleep, 10);
    let soon = Duration::from_millis(20);
    assert!(tokio::time::timeout(soon, desk.sleepers()).await.is_err(), "nobody waits");
    let waiting = ticket(&desk);
    assert_eq!(desk.sleepers().await, [id()]);
    let another = ticket(&desk);
    assert!(tokio::time::timeout(soon, desk.sleepers()).await.is_err(), "it was asked already");
    desk.not_asked(&id());
    assert_eq!(tokio::time::timeout(2 * ASK_AGAIN_AFTER_FAILURE, desk.sleepers()).await.unwrap(), [id()]);
    desk.update_routes(&Catalogue::new([route(Standing::Awake, 10)]));
    desk.not_asked(&id());
    assert!(tokio::time::timeout(soon, desk.sleepers()).await.is_err(), "it wakes already");
    drop((waiting, another));
}

#[tokio::test]
async fn a_waiter_learns_how_long_the_last_wake_took() {
    let desk = desk(Standing::Asleep, 10);
    let first = ticket(&desk);
    let outlook = desk.outlook(&id(), first.place).unwrap();
    assert_eq!(outlook, Outlook { ahead: 0, waking: true, eta_seconds: None });
    desk.update_endpoints(&replicas(1));
    drop(first.wait().await.unwrap());
    desk.update_endpoints(&Endpoints::new());
    let next = ticket(&desk);
    assert_eq!(desk.outlook(&id(), next.place).unwrap().eta_seconds, Some(1));
    drop(next);
    assert_eq!(desk.outlook(&id(), (Duration::ZERO, 0)), None);
}

#[tokio::test]
async fn a_replica_that_rests_is_asked_again_though_nothing_happens() {
    let desk = desk(Standing::Awake, 10);
    let stop = CancellationToken::new();
    let work = tokio::spawn(Arc::clone(&desk).run(stop.clone()));
    desk.update_endpoints(&replicas(1));
    lease(&desk).rest(Duration::from_millis(50));
    let begun = Instant::now();
    let waited = ticket(&desk).wait().await;
    assert!(waited.is_ok() && begun.elapsed() >= Duration::from_millis(40));
    stop.cancel();
    work.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_happens_at_once_nothing_is_lost_or_counted_twice() {
    let desk = desk(Standing::Awake, 1000);
    let mut roomy = route(Standing::Awake, 1000);
    roomy.bounds.bytes = 1 << 20;
    desk.update_routes(&Catalogue::new([roomy]));
    let stop = CancellationToken::new();
    let work = tokio::spawn(Arc::clone(&desk).run(stop.clone()));
    let requests = (0..400_u64).map(|n| {
        let desk = Arc::clone(&desk);
        tokio::spawn(async move {
            let mut lease = match ask(&desk).unwrap() {
                Turn::Now(lease) => lease,
                Turn::Later(ticket) if n.is_multiple_of(7) => {
                    // The client leaves.
                    drop(tokio::time::timeout(Duration::from_micros(n * 10), ticket.wait()).await);
                    return false;
                }
                Turn::Later(ticket) => ticket.wait().await.unwrap(),
            };
            tokio::task::yield_now().await;
            if n.is_multiple_of(5) {
                lease.rest(Duration::from_millis(1));
                return true;
            }
            lease.answered();
            true
        })
    });
    let changes = async {
        for n in 0..200 {
            desk.update_endpoints(&replicas(n % 4));
            tokio::task::yield_now().await;
        }
        desk.update_endpoints(&replicas(3));
    };
    let (answered, ()) = futures::join!(join_all(requests), changes);
    assert!(answered.into_iter().filter(|answered| *answered.as_ref().unwrap()).count() > 300);
    assert_eq!(counts(&desk), (0, 0));
    stop.cancel();
    work.await.unwrap();
}

fn waiter(at: Duration, number: u64) -> ((Place, bool), Waiter<()>) {
    (((at, number), false), Waiter { bytes: 10, affinity: None, tried: Vec::new(), since: at, tell: () })
}

/// Lets a request enter; a refused one returns what it is told of when to come again.
fn enter(line: &mut Line<()>, seconds: u64, number: u64) -> Result<Entry, u64> {
    let now = Duration::from_secs(seconds);
    let (bounds, (place, waiter)) = (line.route().bounds, waiter(now, number));
    line.enter(place, &bounds, waiter, now).map_err(|refusal| match refusal {
        Refusal::QueueFull { retry_after_seconds, .. } => retry_after_seconds,
        other => panic!("{other:?}"),
    })
}

#[test]
fn who_is_refused_while_a_model_wakes_is_told_what_is_left_of_the_time_that_it_took_before() {
    for (took, left) in [(12, 9), (33, 30), (200, 60)] {
        let mut line: Line<()> = Line::new(Arc::new(route(Standing::Asleep, 1)), &[]);
        assert_eq!(enter(&mut line, 100, 0), Ok(Entry::Waits));
        assert_eq!(enter(&mut line, 103, 1), Err(10), "nothing is known yet");
        let woken = Duration::from_secs(100 + took);
        line.update_endpoints(&replicas(1)[&id()], woken);
        assert_eq!(line.release(woken).len(), 1);
        line.give_back("pod-0", true, woken);
        line.update_endpoints(&[], Duration::from_secs(1000));
        assert_eq!(enter(&mut line, 1000, 2), Ok(Entry::Waits));
        assert_eq!(enter(&mut line, 1003, 3), Err(left), "it took {took} s");
        assert_eq!(enter(&mut line, 1000 + took, 4), Err(1), "any moment now");
    }
}

#[test]
fn who_is_refused_by_busy_replicas_is_told_by_the_pace_of_their_answers() {
    for (every_seconds, told) in [(2, 7..=9), (5, 18..=22), (10, 36..=44)] {
        let mut line: Line<()> = Line::new(Arc::new(route(Standing::Awake, 3)), &replicas(1)[&id()]);
        assert!(matches!(enter(&mut line, 0, 0), Ok(Entry::Seated(_))));
        assert!(matches!(enter(&mut line, 0, 1), Ok(Entry::Seated(_))), "two at a time");
        let mut number = 2;
        for n in 1..=60 {
            line.give_back("pod-0", true, Duration::from_secs(n * every_seconds));
            assert!(matches!(enter(&mut line, n * every_seconds, number), Ok(Entry::Seated(_))));
            number += 1;
        }
        let now = 60 * every_seconds + every_seconds / 2;
        for _ in 0..3 {
            assert_eq!(enter(&mut line, now, number), Ok(Entry::Waits));
            number += 1;
        }
        let seconds = enter(&mut line, now, number).unwrap_err();
        assert!(told.contains(&seconds), "3 wait, and one goes every {every_seconds} s: {seconds}");
    }
}
