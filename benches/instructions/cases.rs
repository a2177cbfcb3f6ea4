//! What is counted: a name, how many bytes one call reads, and the call.

use proto::{
    policy::{Policy, Verdict},
    scan::{self, From},
};
use std::{
    cell::{Cell, RefCell},
    hint::black_box,
    time::Duration,
};
use tollgate_benches::{
    bodies::{alike, bounds, names, sample},
    policies::{self, Unused, of_conditions, of_tools},
};

use crate::inside::{CALL_BYTES, Decider, Ends, Gateway, SMALL, TOKEN};

/// Calls before the counted ones.
const WARM_CALLS: usize = 300;
/// Tools of one policy that are called in turn.
const NAMES_MAX: usize = 400;
/// Before a decision without quota is made again.
const LEASE_PAUSE: Duration = Duration::from_millis(2);
/// What a gateway does on its runtime: reading, deciding, the upstream's connection, answering.
const TASKS: &str = "tokio::runtime::task::raw::poll";

/// Not the seed of any bench: what is counted was not tuned on.
const SEED: u64 = 0x51f3;

/// A case is made when it is run: the making takes longer than the work.
pub struct Case {
    pub name: String,
    pub make: Box<dyn Fn() -> Work>,
    /// Only what runs inside of functions with this in their name is counted: a gateway's other threads keep time.
    pub within: Option<&'static str>,
}

/// What is run, and how many bytes one call reads.
pub struct Work {
    pub bytes: usize,
    pub call: Box<dyn Fn()>,
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
        let make = move || judge(of_tools(tools), conditioned(tools));
        cases.push(Case {
            name,
            make: Box::new(make),
            within: None,
        });
    }
    for conditions in [1, 50] {
        let name = format!("policy of {conditions} conditions");
        let make = move || judge(of_conditions(conditions), vec!["conditional".into()]);
        cases.push(Case {
            name,
            make: Box::new(make),
            within: None,
        });
    }
    cases.push(Case {
        name: "decision, a call of 500 bytes".into(),
        make: Box::new(decide),
        within: Some("Decider::decides_known"),
    });
    cases.push(Case {
        name: "request through the gateway".into(),
        make: Box::new(request),
        within: Some(TASKS),
    });
    cases
}

fn decide() -> Work {
    let decider = Decider::new(SMALL);
    Work {
        bytes: CALL_BYTES,
        call: Box::new(move || {
            // Uncounted: after it there is quota in hand. A decision that waits for a lease would be counted over and over.
            while !decider.decides_token(TOKEN) {
                std::thread::sleep(LEASE_PAUSE);
            }
            while !decider.decides_known() {
                std::thread::sleep(LEASE_PAUSE);
            }
        }),
    }
}

fn request() -> Work {
    let gateway = Gateway::start();
    let ends = RefCell::new(Ends::connect(gateway.address));
    // The first leases are small.
    for _ in 0..WARM_CALLS {
        ends.borrow_mut().call();
    }
    Work {
        bytes: CALL_BYTES,
        call: Box::new(move || {
            let _running = &gateway;
            ends.borrow_mut().call();
        }),
    }
}

fn case(name: &str, make: impl Fn() -> Work + 'static) -> Case {
    Case {
        name: format!("scan {name}"),
        make: Box::new(make),
        within: None,
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
        call: Box::new(move || {
            let read = scan::read(black_box(&body), &bounds, from);
            assert!(
                black_box(read).is_ok(),
                "invariant: the bench's bodies are well-formed"
            );
        }),
    }
}

/// Tools with conditions and limits. One after the other is called, or how lucky the seed of the table's hash is with one
/// name would be counted over and over.
fn conditioned(tools: usize) -> Vec<String> {
    let count = tools.div_ceil(3).min(NAMES_MAX);
    (0..count).map(|n| format!("full_{n}")).collect()
}

fn judge(policy: Policy, tools: Vec<String>) -> Work {
    let next = Cell::new(0);
    Work {
        bytes: policies::ARGUMENTS.len(),
        call: Box::new(move || {
            let tool = &tools[next.get() % tools.len()];
            next.set(next.get() + 1);
            let verdict = black_box(policy.evaluate(&policies::call(tool), &Unused));
            assert!(
                matches!(verdict, Verdict::Admit { .. }),
                "invariant: the call is admitted"
            );
        }),
    }
}
