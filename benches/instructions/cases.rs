//! What is counted: a name, how many bytes one call reads, and the call.

use crate::inside::{self, Decider, Ends, Gateway};
use proto::{
    policy::{Policy, Verdict},
    scan::{self, From},
};
use std::{hint::black_box, net::SocketAddr};
use tollgate_benches::{
    bodies::{alike, bounds, names, sample},
    policies::{self, Unused, of_conditions, of_tools},
};

/// Not the seed of any bench: what is counted was not tuned on.
const SEED: u64 = 0x51f3;
/// Requests before those that count: leases have grown by then.
const WARM_REQUESTS: usize = 50;

/// A case is made when it is run: the making takes longer than the work.
pub struct Case {
    pub name: String,
    pub make: Box<dyn Fn() -> Work>,
}

/// What is run, how many bytes one call reads, and how many calls are counted.
pub struct Work {
    pub bytes: usize,
    pub times: u64,
    pub call: Box<dyn FnMut()>,
}

/// About as many instructions for a small body as for a large one.
fn times(bytes: usize) -> u64 {
    (400_000 / bytes).clamp(2, 400) as u64
}

/// Every case, in the baseline's order.
pub fn all() -> Vec<Case> {
    let mut cases: Vec<Case> = names().filter(counted).map(scan).collect();
    cases.push(case("1,024 keys with equal ends", || {
        read(alike(1_024).0, From::Client)
    }));
    cases.push(case("1,024 keys", || read(alike(1_024).1, From::Client)));
    for tools in [10, 10_000] {
        let name = format!("policy of {tools} tools, conditions and limits");
        let make = move || judge(of_tools(tools), "full_1");
        cases.push(Case {
            name,
            make: Box::new(make),
        });
    }
    for conditions in [1, 50] {
        let name = format!("policy of {conditions} conditions");
        let make = move || judge(of_conditions(conditions), "conditional");
        cases.push(Case {
            name,
            make: Box::new(make),
        });
    }
    cases.extend([
        Case {
            name: "a decision, the token hashed".to_owned(),
            make: Box::new(decide),
        },
        Case {
            name: "a request to the upstream alone, with client and upstream".to_owned(),
            make: Box::new(|| request(|gateway| gateway.upstream)),
        },
        Case {
            name: "the same through the gateway".to_owned(),
            make: Box::new(|| request(|gateway| gateway.address)),
        },
    ]);
    cases
}

/// Threads beside it do what takes time, not calls: over so many calls they hardly count.
fn decide() -> Work {
    let decider = Decider::new(10);
    Work {
        bytes: inside::CALL_BYTES,
        times: 20_000,
        call: Box::new(move || {
            assert!(
                decider.decides_token(inside::TOKEN),
                "invariant: the call is admitted"
            )
        }),
    }
}

fn request(address: fn(&Gateway) -> SocketAddr) -> Work {
    let gateway = Gateway::start();
    let mut ends = Ends::connect(address(&gateway));
    for _ in 0..WARM_REQUESTS {
        ends.call();
    }
    Work {
        bytes: inside::CALL_BYTES,
        times: 2_000,
        call: Box::new(move || {
            let _ = &gateway;
            ends.call();
        }),
    }
}

fn case(name: &str, make: impl Fn() -> Work + 'static) -> Case {
    Case {
        name: format!("scan {name}"),
        make: Box::new(make),
    }
}

/// Small ones of every shape, and of the large ones those whose bytes pass in vectors.
fn counted(&(shape, size): &(&str, &str)) -> bool {
    let vectors = matches!(shape, "base64" | "CJK");
    match size {
        "200 B" => shape == "ordinary",
        "1 KB" => true,
        "16 KB" => !vectors,
        _ => vectors,
    }
}

fn scan((shape, size): (&'static str, &'static str)) -> Case {
    case(&format!("{shape} {size}"), move || {
        let Some(sample) = sample(SEED, shape, size) else {
            unreachable!("invariant: the names are those of samples");
        };
        read(sample.bytes, sample.from)
    })
}

fn read(body: Vec<u8>, from: From) -> Work {
    let bounds = bounds();
    Work {
        bytes: body.len(),
        times: times(body.len()),
        call: Box::new(move || {
            let read = scan::read(black_box(&body), &bounds, from);
            assert!(
                black_box(read).is_ok(),
                "invariant: the bench's bodies are well-formed"
            );
        }),
    }
}

fn judge(policy: Policy, tool: &'static str) -> Work {
    Work {
        bytes: policies::ARGUMENTS.len(),
        times: times(policies::ARGUMENTS.len()),
        call: Box::new(move || {
            let verdict = black_box(policy.evaluate(&policies::call(tool), &Unused));
            assert!(
                matches!(verdict, Verdict::Admit { .. }),
                "invariant: the call is admitted"
            );
        }),
    }
}
