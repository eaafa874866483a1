//! Simulated servers whose leaks are known.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

mod coverage;

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014), whose streams
/// from neighbouring seeds have nothing in common.
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// By the sum of twelve.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }
}

/// A server under a mixed load.
#[derive(Clone, Copy)]
struct Server {
    /// Bytes that a request of each route leaves; it is requested as often as any other.
    leaks: [f64; 3],
    /// The share of requests that leave anything; what they leave is as much more.
    share: f64,
    /// Bytes an interval that no request is to blame for.
    background: f64,
    /// Standard deviation, bytes an interval.
    noise: f64,
}

const SERVER: Server = Server {
    leaks: [20_000.0, 0.0, 5_000.0],
    share: 1.0,
    background: 100_000.0,
    noise: 10_000.0,
};

impl Server {
    fn run(self, intervals: usize, requests: usize, random: &mut Random) -> Vec<Interval> {
        let mut interval = || {
            let mut counts = vec![0; self.leaks.len()];
            let mut growth = self.background + self.noise * random.normal();
            for _ in 0..requests {
                let route = (random.uniform() * 3.0) as usize;
                counts[route] += 1;
                if random.uniform() < self.share {
                    growth += self.leaks[route] / self.share;
                }
            }
            Interval {
                length_ns: 1,
                growth: growth as i64,
                requests: counts,
            }
        };
        (0..intervals).map(|_| interval()).collect()
    }
}

/// Closed loops keep the sum of all requests constant; a server in the wild does not.
fn with_quiet_moments(mut series: Vec<Interval>, random: &mut Random) -> Vec<Interval> {
    for interval in &mut series {
        let dropped = (random.uniform() * interval.requests[1] as f64) as u64;
        interval.requests[1] -= dropped;
    }
    series
}

/// 5,000 requests in 100 intervals.
fn five_thousand(server: Server, seed: u64) -> Vec<Interval> {
    let mut random = Random(seed);
    let series = server.run(100, 50, &mut random);
    with_quiet_moments(series, &mut random)
}

fn told(estimate: &Estimate, route: usize) -> (f64, f64) {
    match estimate.routes[route] {
        RouteEstimate::Told {
            bytes,
            standard_error,
        } => (bytes, standard_error),
        ref other => panic!("{other:?}"),
    }
}

fn is_near(told: f64, truth: f64, part: f64) -> bool {
    (told - truth).abs() <= part * truth.abs()
}

#[test]
fn the_leak_of_five_thousand_requests_is_found_within_a_tenth() {
    for seed in 0..100 {
        let estimate = by_route(&five_thousand(SERVER, seed), EstimatedFrom::Blocks)
            .expect("there is enough data");
        let (leak, _) = told(&estimate, 0);
        assert!(is_near(leak, 20_000.0, 0.1), "{seed}: {estimate:?}");
        let (none, error) = told(&estimate, 1);
        assert!(none < 4.0 * error && none < 2_000.0, "{seed}: {estimate:?}");
    }
}

#[test]
fn the_truth_is_within_two_standard_errors_most_of_the_time() {
    let is_within = |seed: &u64| {
        let estimate = by_route(&five_thousand(SERVER, *seed), EstimatedFrom::Blocks)
            .expect("there is enough data");
        let (bytes, error) = told(&estimate, 0);
        (bytes - 20_000.0).abs() <= 2.0 * error
    };
    let within = (0..400).filter(is_within).count();
    // 97 % of 400 are 388, give or take 3.
    assert!((380..=397).contains(&within), "{within}");
}

#[test]
fn what_comes_and_goes_is_no_leak() {
    let server = Server {
        leaks: [20_000.0, 0.0, 0.0],
        background: 0.0,
        noise: 0.0,
        ..SERVER
    };
    let is_told = |seed: &u64| {
        let mut random = Random(*seed);
        let series = server.run(60, 100, &mut random);
        let mut series = with_quiet_moments(series, &mut random);
        let mut garbage = 0;
        for interval in &mut series {
            let now = (100_000.0 * random.normal()) as i64;
            interval.growth += now - garbage;
            garbage = now;
        }
        let estimate = by_route(&series, EstimatedFrom::Blocks).expect("there is enough data");
        let is_leak = is_near(told(&estimate, 0).0, 20_000.0, 0.1);
        is_leak && [1, 2].iter().all(|it| told(&estimate, *it).0 < 2_000.0)
    };
    let told = (0..100).filter(is_told).count();
    assert!(told >= 95, "{told}");
}

#[test]
fn shares_of_a_steady_load_can_be_told_if_a_route_leaves_nothing() {
    // A little background is taken for what requests leave, and is in the error.
    for (background, most) in [(0.0, 500.0), (20_000.0, 1_000.0)] {
        let server = Server {
            background,
            ..SERVER
        };
        let series = server.run(100, 50, &mut Random(1));
        let estimate = by_route(&series, EstimatedFrom::Blocks).expect("there is enough data");
        for (route, truth) in [(0, 20_000.0), (1, 0.0), (2, 5_000.0)] {
            let (bytes, error) = told(&estimate, route);
            assert!(
                (bytes - truth).abs() < 3.0 * error && error < most,
                "{estimate:?}"
            );
        }
    }
}

#[test]
fn single_jumps_are_set_aside_and_reported() {
    let mut series = five_thousand(SERVER, 1);
    for at in [10, 60] {
        series[at].growth += 500_000_000;
    }
    let estimate = by_route(&series, EstimatedFrom::Blocks).expect("there is enough data");
    assert!(is_near(told(&estimate, 0).0, 20_000.0, 0.1), "{estimate:?}");
    assert!(is_near(estimate.unexplained, 1e9, 0.01), "{estimate:?}");
}

#[test]
fn a_leak_of_every_hundredth_request_is_no_single_jump() {
    let rare = Server {
        leaks: [20_000.0, 0.0, 0.0],
        share: 0.01,
        ..SERVER
    };
    // Where one request in a hundred leaves 2 MB, fifty thousand requests tell its share within 8,000
    // bytes, and fifty recordings of them the mean of that within 1,100. It is 2,700 too high (of 800
    // recordings), since the two routes without a leak are never found to leave less than nothing; without
    // that bound it is right.
    let estimates = (0..50).map(|seed| {
        let mut random = Random(seed);
        let series = rare.run(1000, 50, &mut random);
        let series = with_quiet_moments(series, &mut random);
        let estimate = by_route(&series, EstimatedFrom::Blocks).expect("there is enough data");
        let (bytes, error) = told(&estimate, 0);
        assert!((bytes - 20_000.0).abs() <= 4.0 * error, "{estimate:?}");
        bytes
    });
    let mean = estimates.sum::<f64>() / 50.0;
    assert!(is_near(mean, 20_000.0, 0.25), "{mean}");
}

#[test]
fn routes_that_come_together_are_named_and_blame_no_other() {
    let mut series = five_thousand(SERVER, 2);
    for interval in &mut series {
        let again = interval.requests[0];
        interval.requests.extend([2 * again, 7, 0]);
        // Each of the two leaves 10,000 bytes then; the third is free.
        interval.growth += 20_000 * again as i64;
    }
    let estimate = by_route(&series, EstimatedFrom::Blocks).expect("there is enough data");
    assert_eq!(estimate.routes[0], RouteEstimate::TiedTo(vec![3]));
    assert_eq!(estimate.routes[3], RouteEstimate::TiedTo(vec![0]));
    assert_eq!(estimate.routes[4], RouteEstimate::TiedTo(vec![]));
    assert_eq!(estimate.routes[5], RouteEstimate::NotSeen);
    assert!(told(&estimate, 1).0 < 2_000.0, "{estimate:?}");
    assert!(is_near(told(&estimate, 2).0, 5_000.0, 0.4), "{estimate:?}");
}

#[test]
fn what_may_be_background_beside_a_constant_load_is_in_the_error() {
    let series = SERVER.run(100, 50, &mut Random(3));
    let estimate = by_route(&series, EstimatedFrom::Blocks).expect("there is enough data");
    // The background is as if each request left 2,000 bytes more.
    for (route, truth) in [(0, 20_000.0), (1, 0.0), (2, 5_000.0)] {
        let (bytes, error) = told(&estimate, route);
        let [least, most] = [bytes - 2.0 * error, bytes + 2.0 * error];
        assert!(least <= truth && most >= truth + 2_000.0, "{estimate:?}");
        assert!(error < 3_000.0, "{estimate:?}");
    }
}

#[test]
fn one_route_that_is_requested_as_evenly_as_time_is_said_to_be() {
    // Nobody asks for anything in the first moments and in the last ones.
    let requests = |at: u64| {
        if (3..97).contains(&at) {
            100 + at % 2
        } else {
            0
        }
    };
    let series = (0..100).map(|at| Interval {
        length_ns: 1,
        growth: 1000,
        requests: vec![requests(at)],
    });
    let estimate = by_route(&series.collect::<Vec<_>>(), EstimatedFrom::Blocks);
    let estimate = estimate.expect("there is enough data");
    assert_eq!(estimate.routes, [RouteEstimate::TiedTo(vec![])]);
}

#[test]
fn what_cannot_be_estimated_says_why() {
    let interval = |requests: &[u64]| Interval {
        length_ns: 1,
        growth: 1,
        requests: requests.to_vec(),
    };
    let few = vec![interval(&[1, 2, 0]); 8];
    assert_eq!(
        by_route(&few, EstimatedFrom::Blocks),
        Err(EstimateError::TooFewIntervals {
            intervals: 8,
            routes: 2,
            needed: 9
        })
    );
    let ragged = [interval(&[1]), interval(&[1, 2])];
    assert_eq!(
        by_route(&ragged, EstimatedFrom::Blocks),
        Err(EstimateError::Ragged)
    );
    let wide = [interval(&[1; MAX_ROUTES + 1])];
    assert_eq!(
        by_route(&wide, EstimatedFrom::Blocks),
        Err(EstimateError::TooManyRoutes(MAX_ROUTES + 1))
    );
    assert!(by_route(&[], EstimatedFrom::Blocks).is_err());
}

#[test]
fn too_few_requests_and_those_that_come_at_once_give_no_estimate() {
    let requests = |at: u64| {
        [
            at % 3,
            u64::from(at.is_multiple_of(5)),
            if at == 7 { 50 } else { 0 },
        ]
    };
    let series = (0..40).map(|at| Interval {
        length_ns: 1,
        growth: 1000 * (at % 3) as i64,
        requests: requests(at).to_vec(),
    });
    let series: Vec<_> = series.collect();
    let estimate = by_route(&series, EstimatedFrom::ResidentSet).expect("there is enough data");
    assert!(told(&estimate, 0).1 > 0.0, "{estimate:?}");
    assert_eq!(
        estimate.routes[1..],
        [RouteEstimate::TooFew(8), RouteEstimate::AtOnce]
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn without_noise_the_truth_is_found(
        counts in vec(vec(0..50u64, 4), 30..60),
        leaks in vec(0..100_000i64, 4),
        background in -1_000_000..1_000_000i64,
    ) {
        let series: Vec<_> = counts.into_iter().map(|requests| {
            let left = requests.iter().zip(&leaks).map(|(count, leak)| *count as i64 * leak);
            Interval { length_ns: 1, growth: background + left.sum::<i64>(), requests }
        }).collect();
        let estimate = by_route(&series, EstimatedFrom::Blocks).expect("there is enough data");
        for (route, leak) in leaks.iter().enumerate() {
            prop_assert!((told(&estimate, route).0 - *leak as f64).abs() < 1.0, "{:?}", estimate);
        }
        prop_assert!((estimate.background - background as f64).abs() < 10.0);
    }

    #[test]
    fn any_series_gives_numbers_or_says_why_not(
        counts in vec(vec(prop_oneof![0..3u64, any::<u64>()], 3), 0..20),
        growth in vec(any::<i64>(), 20),
    ) {
        let series = counts.into_iter().zip(growth);
        let series: Vec<_> = series.map(|(requests, growth)| Interval { length_ns: 1, growth, requests }).collect();
        if let Ok(estimate) = by_route(&series, EstimatedFrom::Blocks) {
            prop_assert!(estimate.background.is_finite() && estimate.unexplained.is_finite());
            for route in estimate.routes {
                if let RouteEstimate::Told { bytes, standard_error } = route {
                    prop_assert!(bytes.is_finite() && bytes >= 0.0 && standard_error.is_finite());
                }
            }
        }
    }
}

#[test]
fn as_many_routes_are_told_apart_as_the_intervals_allow() {
    assert_eq!(told_apart(300, 20), 20);
    assert_eq!(told_apart(60, 19), 19);
    // 18 of their own, and one for all others.
    assert_eq!(told_apart(60, 20), 18);
    assert_eq!(told_apart(10_000, 1_000), MAX_ROUTES - 1);
    assert_eq!(told_apart(5, 2), 2, "too few for any");
    for (intervals, routes) in [(9, 3), (60, 20), (10_000, 1_000)] {
        let columns = routes.min(told_apart(intervals, routes) + 1);
        let requests = |it| {
            (0..columns as u64)
                .map(|route| (it * it + route) % 7)
                .collect()
        };
        let series = (0..intervals as u64).map(|it| Interval {
            length_ns: 1,
            growth: 0,
            requests: requests(it),
        });
        let series: Vec<_> = series.collect();
        assert!(
            by_route(&series, EstimatedFrom::Blocks).is_ok(),
            "{intervals} intervals, {routes} routes"
        );
    }
}
