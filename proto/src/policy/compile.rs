//! From meaning to something that decides quickly: exact names in a map, globs by length, regexes built, limits hashed.

use super::{
    condition::{self, Condition, Subject, Test},
    dialect::Dialect,
    glob::Names,
    ir::{self, Amount},
    keys::Keys,
    path::Path,
    text, validate,
};
use crate::limit::{
    CounterKey, HashKey, Kind, Limit, Scope,
    amount::UNITS_MAX,
    identity::{IdentityParts, counter_key},
};
use siphasher::sip::SipHasher24;
use std::{collections::HashMap, hash::Hasher, sync::Arc};

/// Longest label, bytes.
pub const LABEL_BYTES_MAX: usize = 256;

/// Where a policy is put to work: a policy is compiled once for every server it is used on.
#[derive(Clone, Copy)]
pub struct Site<'a> {
    /// The server's name.
    pub server: &'a str,
    /// The policy's name.
    pub policy: &'a str,
    /// The cluster's secret.
    pub secret: &'a HashKey,
    /// For the companion of session limits: sessions that one grant may hold.
    pub sessions_per_grant: u32,
}

/// A compiled policy.
#[derive(Debug)]
pub struct Policy {
    /// The policy's name.
    pub name: Arc<str>,
    /// First 16 hexadecimal digits of a hash of its meaning: changes whenever the document's meaning does.
    pub revision: Arc<str>,
    /// Every limit, companions included.
    pub limits: Vec<Arc<Limit>>,
    pub(super) server: Arc<str>,
    pub(super) secret: HashKey,
    pub(super) hidden: Names<()>,
    pub(super) tools: Names<Plan>,
    /// For tools that are not listed; `None` = they are denied.
    pub(super) unlisted: Option<Plan>,
    pub(super) methods: Methods,
    /// A limit that is known to be used up fails at its place among the rules.
    pub(super) limits_in_place: bool,
    pub(super) shadow: bool,
    pub(super) list_denied: bool,
    pub(super) terse: bool,
    /// See [`Policy::list_revision`].
    pub(super) listed: u64,
}

/// What a call to one tool has to pass, in order.
pub(super) type Plan = Box<[Arc<Step>]>;

#[derive(Debug)]
pub(super) struct Step {
    pub rule: Arc<str>,
    /// The author's, or a sentence that says the same.
    pub message: Arc<str>,
    pub what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Deny,
    Require(Box<[Condition]>),
    DenyIf(Box<[Condition]>),
    Take(Take),
}

/// What a call takes from one limit.
#[derive(Debug)]
pub(super) struct Take {
    pub limit: Arc<Limit>,
    pub amount: Amount,
    pub key: Option<Path>,
    pub keys_max: u32,
    /// Whether there is a bound at all.
    pub bounded: bool,
    /// Rule ids for an amount and a key that cannot be computed.
    pub amount_rule: Arc<str>,
    pub key_rule: Arc<str>,
    /// The counter, where it is the same for every call.
    pub fixed: Option<CounterKey>,
    /// Where the limit stands among the policy's, if each grant has one counter of it.
    pub of_grant: Option<usize>,
}

#[derive(Debug)]
pub(super) enum Methods {
    All,
    /// Which pass, and the rule's id.
    Allow(Names<()>, Arc<str>),
    /// Which do not, each with its rule's id.
    Deny(Names<Arc<str>>),
}

/// Compiles. Problems found only here (regex too large, equal identities, …) come back with their places.
pub fn compile(policy: &ir::Policy, site: Site<'_>) -> Result<Policy, Vec<crate::doc::Problem>> {
    let problems = validate::problems(policy);
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut compiler = Compiler {
        policy,
        site,
        limits: Vec::new(),
        counters: HashMap::new(),
    };
    let takes: Vec<Vec<Take>> = policy
        .steps()
        .map(|(tool, step)| compiler.takes(tool, step))
        .collect();
    let mut takes = takes.into_iter();
    let all = compiler.steps(&policy.all, &mut takes)?;
    let mut tools = Vec::new();
    for tool in &policy.tools {
        let own = compiler.steps(&tool.steps, &mut takes)?;
        tools.push((tool.name.as_str(), plan(policy, &own, &all)));
    }
    Ok(Policy {
        name: site.policy.into(),
        revision: revision(policy),
        server: site.server.into(),
        secret: site.secret.clone(),
        hidden: Names::new(policy.hide.iter().map(|hidden| (hidden.name.as_str(), ()))),
        tools: Names::new(tools),
        unlisted: (policy.unlisted == ir::Unlisted::Allow).then(|| plan(policy, &[], &all)),
        methods: methods(&policy.methods),
        limits_in_place: policy.dialect != Dialect::Native,
        shadow: policy.shadow,
        list_denied: policy.list_denied,
        terse: policy.terse,
        listed: listed(policy),
        limits: compiler.limits,
    })
}

/// The order of judgement (policies.md §4).
fn plan(policy: &ir::Policy, own: &[Arc<Step>], all: &[Arc<Step>]) -> Plan {
    let (first, second) = if policy.all_first {
        (all, own)
    } else {
        (own, all)
    };
    let mut steps: Vec<Arc<Step>> = first.iter().chain(second).cloned().collect();
    steps.sort_by_key(|step| match (policy.dialect, &step.what) {
        (Dialect::Native, What::Deny | What::DenyIf(_)) => 0,
        (Dialect::Native, What::Require(_)) => 1,
        (Dialect::Native, What::Take(_)) => 2,
        (Dialect::Catalogue, What::Deny) => 0,
        (Dialect::Catalogue, _) => 1,
        (Dialect::Intercept, _) => 0,
    });
    steps.into()
}

fn methods(methods: &ir::Methods) -> Methods {
    match methods {
        ir::Methods::All => Methods::All,
        ir::Methods::Allow { place, names } => Methods::Allow(
            Names::new(names.iter().map(|name| (name.as_str(), ()))),
            place.pointer.as_str().into(),
        ),
        ir::Methods::Deny { place, names } => {
            Methods::Deny(Names::new(names.iter().enumerate().map(|(i, name)| {
                (name.as_str(), format!("{}/{i}", place.pointer).into())
            })))
        }
    }
}

fn revision(policy: &ir::Policy) -> Arc<str> {
    let mut hasher = SipHasher24::new();
    // What the types of `ir` hold can always be written.
    hasher.write(&serde_json::to_vec(policy).unwrap_or_default());
    format!("{:016x}", hasher.finish()).into()
}

/// A hash of what [`Policy::lists`] reads, and of nothing else.
fn listed(policy: &ir::Policy) -> u64 {
    let sorted = |mut names: Vec<&str>| {
        names.sort_unstable();
        names.dedup();
        names.join("\0")
    };
    let denies = policy.unlisted == ir::Unlisted::Deny && !policy.list_denied;
    let (mut hidden, mut shown) = (Vec::new(), Vec::new());
    if !policy.shadow {
        hidden.extend(policy.hide.iter().map(|hidden| hidden.name.as_str()));
        if denies {
            shown.extend(policy.tools.iter().map(|tool| tool.name.as_str()));
        }
    }
    let mut hasher = SipHasher24::new();
    hasher.write_u8(u8::from(denies && !policy.shadow));
    hasher.write(sorted(hidden).as_bytes());
    hasher.write_u8(0xff);
    hasher.write(sorted(shown).as_bytes());
    hasher.finish()
}

/// The name of the counter that stands beside a session's on its grant.
pub(super) fn companion_counter(counter: &str) -> String {
    format!("{counter} (all sessions)")
}

/// `max` of the companion.
pub(super) fn companion_max(max: u64, sessions_per_grant: u32) -> u64 {
    max.saturating_mul(sessions_per_grant.max(1).into())
        .min(UNITS_MAX)
        .max(max)
}

/// The tool (`None` = all) and the counter's name.
type CounterName<'p> = (Option<&'p str>, &'p str);

struct Compiler<'p> {
    policy: &'p ir::Policy,
    site: Site<'p>,
    limits: Vec<Arc<Limit>>,
    /// Counters that conditions may read.
    counters: HashMap<CounterName<'p>, (Arc<Limit>, CounterKey)>,
}

impl<'p> Compiler<'p> {
    /// The limits of a step: none, one, or a session's and its companion.
    fn takes(&mut self, tool: Option<&'p str>, step: &'p ir::Step) -> Vec<Take> {
        let ir::What::Limit(limit) = &step.what else {
            return Vec::new();
        };
        let mut takes = vec![self.take(tool, step, limit)];
        if limit.scope == Scope::Session && limit.kind != Kind::InFlight {
            let times = |units| companion_max(units, self.site.sessions_per_grant);
            let companion = ir::Limit {
                counter: companion_counter(&limit.counter),
                scope: Scope::Grant,
                max: limit.max.map(times),
                refund_max: limit.refund_max.map(times),
                ..limit.clone()
            };
            takes.push(self.take(tool, step, &companion));
        }
        if let (Some(take), None) = (takes.first(), &limit.key) {
            let key = take.fixed.unwrap_or(CounterKey(0));
            self.counters
                .insert((tool, &limit.counter), (take.limit.clone(), key));
        }
        takes
    }

    fn take(&mut self, tool: Option<&str>, step: &ir::Step, limit: &ir::Limit) -> Take {
        let site = &self.site;
        let tool = tool.unwrap_or("*");
        let identity = IdentityParts {
            // What counts over the whole gateway is the same counter on every server.
            server: if limit.scope == Scope::All {
                "*"
            } else {
                site.server
            },
            policy: site.policy,
            tool,
            counter: &limit.counter,
            scope: limit.scope,
            window: match limit.kind {
                Kind::Rate(window) => Some(window),
                Kind::InFlight => None,
            },
            scale: limit.scale,
            shadow: self.policy.shadow,
        }
        .hash(site.secret);
        let max = limit.max.unwrap_or(UNITS_MAX);
        let shared = Arc::new(Limit {
            identity,
            label: label(&[site.server, site.policy, tool, &limit.counter]),
            rule: step.rule.as_str().into(),
            kind: limit.kind,
            scope: limit.scope,
            scale: limit.scale,
            max,
            on_deny: step.message.as_deref().map(Into::into),
            on_unreachable: limit.on_unreachable,
            refund_on: limit.refund_on,
            refund_max: limit.refund_max.unwrap_or(max),
            counts_only: self.policy.shadow || limit.max.is_none(),
        });
        self.limits.push(shared.clone());
        let value = match limit.scope {
            Scope::Server => Some(site.server),
            Scope::All => Some("*"),
            Scope::Session | Scope::Grant => None,
        };
        let below = match self.policy.dialect {
            Dialect::Intercept => "/state",
            Dialect::Native | Dialect::Catalogue => "",
        };
        Take {
            limit: shared,
            amount: limit.amount.clone(),
            key: limit.key.clone(),
            keys_max: limit.keys_max,
            bounded: limit.max.is_some(),
            of_grant: (limit.scope == Scope::Grant && limit.key.is_none())
                .then_some(self.limits.len() - 1),
            amount_rule: format!("{}{below}/increment_from", step.rule).into(),
            key_rule: format!("{}/key", step.rule).into(),
            fixed: value
                .filter(|_| limit.key.is_none())
                .map(|value| counter_key(site.secret, identity, value, None)),
        }
    }

    fn steps(
        &self,
        steps: &[ir::Step],
        takes: &mut impl Iterator<Item = Vec<Take>>,
    ) -> Result<Vec<Arc<Step>>, Vec<crate::doc::Problem>> {
        let mut compiled = Vec::new();
        for (step, takes) in steps.iter().zip(takes) {
            let rule: Arc<str> = step.rule.as_str().into();
            let message: Arc<str> = text::refusal(step, self.policy.terse).into();
            let mut push = |what| {
                compiled.push(Arc::new(Step {
                    rule: rule.clone(),
                    message: message.clone(),
                    what,
                }));
            };
            match &step.what {
                ir::What::Deny => push(What::Deny),
                ir::What::Require(conditions) => push(What::Require(self.conditions(conditions)?)),
                ir::What::DenyIf(conditions) => push(What::DenyIf(self.conditions(conditions)?)),
                ir::What::Limit(_) => takes.into_iter().map(What::Take).for_each(push),
            }
        }
        Ok(compiled)
    }

    fn conditions(
        &self,
        conditions: &[ir::Condition],
    ) -> Result<Box<[Condition]>, Vec<crate::doc::Problem>> {
        conditions.iter().map(|c| self.condition(c)).collect()
    }

    fn condition(&self, condition: &ir::Condition) -> Result<Condition, Vec<crate::doc::Problem>> {
        let place = &condition.place;
        let problem = |message| {
            vec![crate::doc::Problem::error(
                place.at,
                place.pointer.as_str(),
                message,
            )]
        };
        Ok(Condition {
            subject: match &condition.subject {
                ir::Subject::Args(path) => Subject::Args(path.clone()),
                ir::Subject::Counter { tool, counter } => {
                    let found = self.counters.get(&(tool.as_deref(), counter.as_str()));
                    let (limit, key) =
                        found.ok_or_else(|| problem(format!("no rule counts `{counter}`")))?;
                    Subject::Counter(limit.clone(), *key)
                }
            },
            test: match &condition.test {
                ir::Test::In(any) => Test::In(any.clone()),
                ir::Test::NotIn(none) => Test::NotIn(none.clone()),
                ir::Test::Lt(bound) => Test::Lt(*bound),
                ir::Test::Lte(bound) => Test::Lte(*bound),
                ir::Test::Gt(bound) => Test::Gt(*bound),
                ir::Test::Gte(bound) => Test::Gte(*bound),
                ir::Test::Regex(pattern) => {
                    Test::Regex(condition::regex(pattern).map_err(problem)?)
                }
                ir::Test::Contains(part) => Test::Contains(part.clone()),
                ir::Test::Exists(wanted) => Test::Exists(*wanted),
            },
            loose: self.policy.dialect == Dialect::Intercept,
        })
    }
}

fn label(parts: &[&str]) -> Arc<str> {
    let mut label = parts.join("/");
    if label.len() > LABEL_BYTES_MAX {
        label.truncate(label.floor_char_boundary(LABEL_BYTES_MAX));
    }
    label.into()
}

/// One `tools/call` as the policy sees it.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The tool's name, decoded.
    pub tool: &'a str,
    /// `params.arguments` as validated by the scanner; `None` counts as `{}`.
    pub arguments: Option<&'a [u8]>,
    /// The caller's grant id.
    pub grant: &'a str,
    /// What is kept of this grant under this policy: its counters then have their keys.
    pub keys: Option<&'a Keys>,
    /// The caller's session id, where there is one.
    pub session: Option<&'a str>,
    /// Wall clock of the request.
    pub unix_ms: u64,
}

/// What this node knows of counters without asking anybody.
pub trait Usage {
    /// Units used in the counter's present window, leased counted as used; 0 when unknown.
    fn used(&self, limit: &Limit, key: CounterKey, unix_ms: u64) -> u64;
    /// If a charge of this amount is known to be refused now: the retry hint in milliseconds (`None` inside = never). Of a
    /// limit that only counts: if it would be, did it refuse.
    fn refused(
        &self,
        limit: &Limit,
        key: CounterKey,
        amount: u64,
        unix_ms: u64,
    ) -> Option<Option<u64>>;
}
