//! Judging one call. `Policy::evaluate` is total: whatever comes, there is a verdict.

use super::{
    Policy,
    arguments::Arguments,
    compile::{Call, Methods, Step, Take, Usage, What},
    condition::{self, Condition, Of, Refusal},
    decision::{Code, Denial, Verdict},
    ir::Amount,
    text,
};
use crate::{
    limit::{Charge, CounterKey, Kind, Limit, Scope, identity::counter_key},
    scan::value::Type,
};
use smallvec::SmallVec;

/// Methods that a connection cannot do without: a list of allowed methods never takes them away.
pub const METHODS_ALWAYS: [&str; 3] = ["initialize", "server/discover", "ping"];
/// Longest `key` value kept for people, bytes.
pub const KEY_TEXT_MAX: usize = 128;

type Charges<'a> = SmallVec<[Charge<'a>; 4]>;

impl Policy {
    /// Judges one call. Total: every input has a verdict.
    pub fn evaluate<'a>(&'a self, call: &Call<'a>, usage: &dyn Usage) -> Verdict<'a> {
        let mut charges = Charges::new();
        match self.judge(call, usage, &mut charges) {
            Ok(()) => {
                if !charges.is_sorted_by_key(narrowness) {
                    charges.sort_by_key(narrowness);
                }
                Verdict::Admit {
                    charges,
                    shadow: None,
                }
            }
            Err(denial) if self.shadow => Verdict::Admit {
                charges: Charges::new(),
                shadow: Some(denial),
            },
            Err(denial) => Verdict::Deny(denial),
        }
    }

    /// Judges a method other than `tools/call`.
    pub fn judge_method(&self, method: &str) -> Result<(), Denial<'_>> {
        match self.shadow {
            true => Ok(()),
            false => self.method_denial(method).map_or(Ok(()), Err),
        }
    }

    /// In shadow mode: what [`Self::judge_method`] would have said.
    pub fn shadow_method(&self, method: &str) -> Option<Denial<'_>> {
        self.method_denial(method).filter(|_| self.shadow)
    }

    /// Whether `tools/list` shows this tool (hidden and default-denied ones are removed, unless `list_denied: show`).
    pub fn lists(&self, tool: &str) -> bool {
        let denied =
            || self.unlisted.is_none() && !self.list_denied && self.tools.find(tool).is_none();
        self.shadow || !(self.hidden.find(tool).is_some() || denied())
    }

    /// Whether anything is ever removed from `tools/list`: if not, lists stream through untouched.
    pub fn filters_lists(&self) -> bool {
        let denies = self.unlisted.is_none() && !self.list_denied;
        !self.shadow && (denies || !self.hidden.is_empty())
    }

    /// Changes when the tools that [`Self::lists`] shows may have changed: by rules and limits it never does.
    pub fn list_revision(&self) -> u64 {
        self.listed
    }

    /// The denial for a limit that the limiter refused (`retry_after_ms: None` = can never fit).
    pub fn limit_denial<'a>(
        &'a self,
        limit: &'a Limit,
        remaining: u64,
        retry_after_ms: Option<u64>,
    ) -> Denial<'a> {
        let message = text::limit_reached(limit, self.terse);
        let never = retry_after_ms.is_none() && limit.kind != Kind::InFlight;
        Denial {
            code: Code::Limit,
            rule: (&*limit.rule).into(),
            message: match never {
                true => text::join(&message, &text::never_fits(limit, self.terse)).into(),
                false => message,
            },
            retry_after_ms: retry_after_ms.filter(|_| limit.kind != Kind::InFlight),
            max: Some(limit.scale.show(limit.max)),
            remaining: Some(limit.scale.show(remaining)),
        }
    }

    /// The denial for a limit whose `key` has taken too many distinct values (`Charge::keys_max`).
    pub fn keys_denial<'a>(&'a self, limit: &'a Limit) -> Denial<'a> {
        let why = "the limit has counted as many different keys in this window as it may";
        let message = match &limit.on_deny {
            Some(said) => text::join(said, why),
            None => text::sentence(why),
        };
        denial(Code::Rule, format!("{}/key", limit.rule), message)
    }

    /// Whether `denial_detail: code` hides rule, max and remaining from the agent.
    pub fn hides_detail(&self) -> bool {
        self.terse
    }

    /// Whether denials are recorded and not made (`mode: shadow`).
    pub fn is_shadow(&self) -> bool {
        self.shadow
    }

    fn method_denial(&self, method: &str) -> Option<Denial<'_>> {
        let always = METHODS_ALWAYS.contains(&method) || method.starts_with("notifications/");
        let rule = match &self.methods {
            _ if method == "tools/call" => return None,
            Methods::All => return None,
            Methods::Allow(names, _) if always || names.find(method).is_some() => return None,
            Methods::Allow(_, rule) => rule,
            Methods::Deny(names) => names.find(method)?,
        };
        let message = format!(
            "The policy does not allow the method {}",
            text::quoted(method)
        );
        Some(denial(Code::Rule, &**rule, message))
    }

    fn judge<'a>(
        &'a self,
        call: &Call<'a>,
        usage: &dyn Usage,
        charges: &mut Charges<'a>,
    ) -> Result<(), Denial<'a>> {
        if self.hidden.find(call.tool).is_some() {
            let message = format!(
                "The tool {} is hidden by the policy",
                text::quoted(call.tool)
            );
            return Err(denial(Code::Hidden, "(hidden)", message));
        }
        let Some(plan) = self.tools.find(call.tool).or(self.unlisted.as_ref()) else {
            let message = format!(
                "The policy does not list the tool {} and denies by default",
                text::quoted(call.tool)
            );
            return Err(denial(Code::Default, "(default deny)", message));
        };
        let arguments = &Arguments::new(call.arguments);
        for step in plan {
            match &step.what {
                What::Deny => return Err(refusal(step)),
                What::Require(conditions) => {
                    if !all_hold(step, conditions, arguments, Of::Every, usage, call.unix_ms)? {
                        return Err(refusal(step));
                    }
                }
                What::DenyIf(conditions) => {
                    if all_hold(step, conditions, arguments, Of::Any, usage, call.unix_ms)? {
                        return Err(refusal(step));
                    }
                }
                What::Take(take) => charges.push(self.charge(step, take, call, arguments, usage)?),
            }
        }
        Ok(())
    }

    fn charge<'a>(
        &'a self,
        step: &'a Step,
        take: &'a Take,
        call: &Call<'a>,
        arguments: &Arguments<'_>,
        usage: &dyn Usage,
    ) -> Result<Charge<'a>, Denial<'a>> {
        let limit = &take.limit;
        let amount = amount(step, take, arguments)?;
        let scope_value = match (limit.scope, call.session) {
            (Scope::Session, Some(session)) => session,
            (Scope::Session, None) | (Scope::Grant, _) => call.grant,
            (Scope::Server, _) => &self.server,
            (Scope::All, _) => "*",
        };
        let key_value = key(step, take, arguments)?;
        let kept = || call.keys?.of(self, call.grant, take.of_grant?);
        let key = take.fixed.or_else(kept).unwrap_or_else(|| {
            let key = key_value.as_deref();
            counter_key(&self.secret, limit.identity, scope_value, key)
        });
        if take.bounded {
            self.refused(limit, key, amount, usage, call.unix_ms)?;
        }
        Ok(Charge {
            limit,
            key,
            amount,
            scope_value,
            keys_max: take.key.as_ref().map(|_| take.keys_max),
            key_text: key_value.map(shortened),
        })
    }

    /// What is known of a limit without asking anybody.
    fn refused<'a>(
        &'a self,
        limit: &'a Limit,
        key: CounterKey,
        amount: u64,
        usage: &dyn Usage,
        unix_ms: u64,
    ) -> Result<(), Denial<'a>> {
        if amount == 0 {
            return Ok(());
        }
        let remaining = || limit.max.saturating_sub(usage.used(limit, key, unix_ms));
        if amount > limit.max {
            return Err(self.limit_denial(limit, remaining(), None));
        }
        // In shadow mode nothing is refused when it is taken: what would have been is asked for here.
        if !self.limits_in_place && !self.shadow {
            return Ok(());
        }
        match usage.refused(limit, key, amount, unix_ms) {
            Some(hint) => Err(self.limit_denial(limit, remaining(), hint)),
            None => Ok(()),
        }
    }
}

fn denial<'a>(
    code: Code,
    rule: impl Into<std::borrow::Cow<'a, str>>,
    message: String,
) -> Denial<'a> {
    Denial {
        code,
        rule: rule.into(),
        message: message.into(),
        retry_after_ms: None,
        max: None,
        remaining: None,
    }
}

fn refusal(step: &Step) -> Denial<'_> {
    Denial {
        code: Code::Rule,
        rule: (&*step.rule).into(),
        message: (&*step.message).into(),
        retry_after_ms: None,
        max: None,
        remaining: None,
    }
}

fn all_hold<'a>(
    step: &'a Step,
    conditions: &[Condition],
    arguments: &Arguments<'_>,
    of: Of,
    usage: &dyn Usage,
    unix_ms: u64,
) -> Result<bool, Denial<'a>> {
    for condition in conditions {
        match condition.holds(arguments, of, usage, unix_ms) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(why) => {
                let path = match &condition.subject {
                    condition::Subject::Args(path) => path.as_str(),
                    condition::Subject::Counter(limit, _) => &limit.label,
                };
                return Err(unreadable(step, &step.rule, &why, path));
            }
        }
    }
    Ok(true)
}

fn unreadable<'a>(step: &'a Step, rule: &'a str, why: &Refusal, path: &str) -> Denial<'a> {
    denial(
        Code::Rule,
        rule,
        text::join(&step.message, &why.explain(path)),
    )
}

/// Units that a call takes; what cannot be counted exactly is refused.
fn amount<'a>(
    step: &'a Step,
    take: &'a Take,
    arguments: &Arguments<'_>,
) -> Result<u64, Denial<'a>> {
    let path = match &take.amount {
        Amount::Fixed(units) => return Ok(*units),
        Amount::From(path) => path,
    };
    let refuse = |why: &str| {
        Err(denial(
            Code::Rule,
            &*take.amount_rule,
            text::join(&step.message, why),
        ))
    };
    let value = match arguments.value(path) {
        Ok(value) => value,
        Err(why) => return Err(unreadable(step, &take.amount_rule, &why, path.as_str())),
    };
    let Some(value) = value else {
        return refuse(&format!("{path} is missing, and the policy counts it"));
    };
    let Some(number) = value.as_number() else {
        let found = condition::kind_name(value.kind());
        return refuse(&format!(
            "{path} is {found}; the policy counts it and needs a number"
        ));
    };
    match take.limit.scale.units(number) {
        Ok(units) => Ok(units),
        Err(why) => refuse(&format!("{path} cannot be counted: {why}")),
    }
}

/// The canonical `key` value: its type is part of it, strings are decoded, equal numbers are alike.
fn key<'a>(
    step: &'a Step,
    take: &'a Take,
    arguments: &Arguments<'_>,
) -> Result<Option<String>, Denial<'a>> {
    let Some(path) = &take.key else {
        return Ok(None);
    };
    let refuse = |why: &str| {
        Err(denial(
            Code::Rule,
            &*take.key_rule,
            text::join(&step.message, why),
        ))
    };
    let read = arguments.value(path).and_then(|value| match value {
        None => Ok(None),
        Some(value) => Ok(Some(match value.kind() {
            Type::String => value.as_str().map(|text| format!("s:{text}")),
            Type::Bool => value.as_bool().map(|is| format!("b:{is}")),
            Type::Number => Some(format!("n:{}", condition::number(value)?)),
            Type::Null | Type::Array | Type::Object => None,
        })),
    });
    match read {
        Ok(Some(Some(key))) => Ok(Some(key)),
        Ok(Some(None)) => refuse(&format!(
            "the policy counts by {path}, which must be a string, a number or true or false"
        )),
        Ok(None) => refuse(&format!("{path} is missing, and the policy counts by it")),
        Err(why) => Err(unreadable(step, &take.key_rule, &why, path.as_str())),
    }
}

fn shortened(mut key: String) -> String {
    if key.len() > KEY_TEXT_MAX {
        key.truncate(key.floor_char_boundary(KEY_TEXT_MAX));
        key.push('…');
    }
    key
}

/// Narrowest scope first, so that a call that is refused never held what others share (limits.md §3).
fn narrowness(charge: &Charge<'_>) -> u8 {
    match (charge.limit.scope, charge.keys_max.is_some()) {
        (_, true) => 2,
        (Scope::Session, false) => 0,
        (Scope::Grant, false) => 1,
        (Scope::Server, false) => 3,
        (Scope::All, false) => 4,
    }
}
