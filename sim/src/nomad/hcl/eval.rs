//! Evaluates HCL expressions like Nomad's parser: `var` and `local` are known, and any other name, such as
//! `${NOMAD_ALLOC_ID}`, is kept for the client to replace (contract, section 1).

use std::{collections::BTreeMap, ops::Range};

use hcl::edit::{
    Span,
    expr::{
        BinaryOperator, Conditional, Expression, ForExpr, FuncCall, Object, ObjectKey, TraversalOperator,
        UnaryOp, UnaryOperator,
    },
    template::{Directive, Element, Strip},
};
use serde_json::{Map, Value};

use super::{
    functions,
    source::{Diagnostics, Source, span},
};

/// The known names.
#[derive(Debug, Clone)]
pub struct Scope<'a> {
    pub(super) source: &'a Source<'a>,
    pub(super) names: BTreeMap<String, Value>,
}

type Evaluated = Result<Value, Diagnostics>;

impl Scope<'_> {
    /// The same names plus one.
    fn with(&self, name: &str, value: Value) -> Self {
        let mut scope = self.clone();
        scope.names.insert(name.to_owned(), value);
        scope
    }

    /// The value of an expression.
    pub fn value(&self, expression: &Expression) -> Evaluated {
        match expression {
            Expression::Null(_) => Ok(Value::Null),
            Expression::Bool(value) => Ok(Value::Bool(*value.as_ref())),
            Expression::Number(value) => Ok(serde_json::to_value(value.value()).unwrap_or_default()),
            Expression::String(text) => Ok(Value::String(text.as_str().to_owned())),
            Expression::Array(items) => {
                items.iter().map(|item| self.value(item)).collect::<Result<Vec<_>, _>>().map(Value::Array)
            }
            Expression::Object(object) => self.object(object),
            Expression::StringTemplate(template) => self.template(template.iter()),
            Expression::HeredocTemplate(heredoc) => self.template(heredoc.template.iter()),
            Expression::Parenthesis(inner) => self.value(inner.inner()),
            Expression::Variable(name) => match self.names.get(name.as_str()) {
                Some(value) => Ok(value.clone()),
                None => Ok(literal(name.as_str())),
            },
            Expression::Traversal(traversal) => {
                let operators: Vec<_> = traversal.operators.iter().map(|o| (o.value(), o.span())).collect();
                match &traversal.expr {
                    Expression::Variable(name) if !self.names.contains_key(name.as_str()) => {
                        self.unknown(&operators)?;
                        Ok(literal(self.source.slice(span(expression))))
                    }
                    root => self.traverse(self.value(root)?, &operators),
                }
            }
            Expression::Conditional(conditional) => self.conditional(conditional),
            Expression::UnaryOp(operation) => self.unary(operation),
            Expression::BinaryOp(operation) => {
                self.binary(&operation.lhs_expr, *operation.operator.value(), &operation.rhs_expr)
            }
            Expression::FuncCall(call) => self.call(call),
            Expression::ForExpr(expression) => self.comprehension(expression),
        }
    }

    fn object(&self, object: &Object) -> Evaluated {
        let mut map = Map::new();
        for (key, value) in object.iter() {
            let key = match key {
                ObjectKey::Ident(name) => name.as_str().to_owned(),
                ObjectKey::Expression(Expression::Variable(name)) => name.as_str().to_owned(),
                ObjectKey::Expression(expression) => {
                    let range = span(expression);
                    let key = self.value(expression)?;
                    self.string(
                        &key,
                        range,
                        "Incorrect key type",
                        "Can't use this value as a key: string required.",
                    )?
                }
            };
            map.insert(key, self.value(value.expr())?);
        }
        Ok(Value::Object(map))
    }

    fn conditional(&self, conditional: &Conditional) -> Evaluated {
        let condition = self.value(&conditional.cond_expr)?;
        match functions::boolean(&condition) {
            Some(true) => self.value(&conditional.true_expr),
            Some(false) => self.value(&conditional.false_expr),
            None => Err(self.source.error(
                span(&conditional.cond_expr),
                "Incorrect condition type",
                "The condition expression must be of type bool.",
            )),
        }
    }

    fn unary(&self, operation: &UnaryOp) -> Evaluated {
        let value = self.value(&operation.expr)?;
        let unsuitable = |what: &str| {
            let detail = format!("Unsuitable value for unary operand: {what} is required.");
            self.source.error(self.source.start(&operation.expr), "Invalid operand", detail)
        };
        match operation.operator.value() {
            UnaryOperator::Neg => {
                let number = functions::number(&value).ok_or_else(|| unsuitable("a number"))?;
                Ok(functions::from_number(-number))
            }
            UnaryOperator::Not => {
                let value = functions::boolean(&value).ok_or_else(|| unsuitable("a bool"))?;
                Ok(Value::Bool(!value))
            }
        }
    }

    fn binary(&self, left: &Expression, operator: BinaryOperator, right: &Expression) -> Evaluated {
        use BinaryOperator::{
            And, Div, Eq, Greater, GreaterEq, Less, LessEq, Minus, Mod, Mul, NotEq, Or, Plus,
        };
        let (a, b) = (self.value(left)?, self.value(right)?);
        let unsuitable = |side: &str, expression: &Expression, what: &str| {
            let detail = format!("Unsuitable value for {side} operand: {what} is required.");
            self.source.error(self.source.start(expression), "Invalid operand", detail)
        };
        match operator {
            Eq => return Ok(Value::Bool(functions::equal(&a, &b))),
            NotEq => return Ok(Value::Bool(!functions::equal(&a, &b))),
            And | Or => {
                return match (functions::boolean(&a), functions::boolean(&b)) {
                    (Some(a), Some(b)) => Ok(Value::Bool(if operator == And { a && b } else { a || b })),
                    (None, _) => Err(unsuitable("left", left, "a bool")),
                    (_, None) => Err(unsuitable("right", right, "a bool")),
                };
            }
            _ => {}
        }
        let (x, y) = match (functions::number(&a), functions::number(&b)) {
            (Some(x), Some(y)) => (x, y),
            (x, y) => {
                let mut diagnostics = Diagnostics::new();
                if x.is_none() {
                    diagnostics.extend(unsuitable("left", left, "a number"));
                }
                if y.is_none() {
                    diagnostics.extend(unsuitable("right", right, "a number"));
                }
                return Err(diagnostics);
            }
        };
        Ok(match operator {
            Plus => functions::from_number(x + y),
            Minus => functions::from_number(x - y),
            Mul => functions::from_number(x * y),
            Div | Mod if y == 0.0 => {
                return Err(self.source.error(
                    self.source.start(right),
                    "Division by zero",
                    "The second operand is zero.",
                ));
            }
            Div => functions::from_number(x / y),
            Mod => functions::from_number(x % y),
            Less => Value::Bool(x < y),
            LessEq => Value::Bool(x <= y),
            Greater => Value::Bool(x > y),
            GreaterEq => Value::Bool(x >= y),
            Eq | NotEq | And | Or => Value::Null,
        })
    }

    fn call(&self, call: &FuncCall) -> Evaluated {
        let name = call.name.name.as_str();
        let place = call.name.name.span().unwrap_or_default();
        if functions::READS_FILES.contains(&name) {
            let detail = format!("Call to function {name:?} failed: filesystem function disabled.");
            return Err(self.source.error(place.start..place.end + 1, "Error in function call", detail));
        }
        if !functions::exists(name) {
            let detail = format!("There is no function named {name:?}.");
            return Err(self.source.error(place, "Call to unknown function", detail));
        }
        let mut arguments = Vec::new();
        let last = call.args.len().saturating_sub(1);
        for (at, argument) in call.args.iter().enumerate() {
            match self.value(argument)? {
                Value::Array(items) if call.args.expand_final() && at == last => arguments.extend(items),
                value => arguments.push(value),
            }
        }
        functions::call(name, &arguments).map_err(|error| {
            let detail = format!("Call to function {name:?} failed: {error}.");
            self.source.error(place.start..place.end + 1, "Error in function call", detail)
        })
    }

    fn comprehension(&self, expression: &ForExpr) -> Evaluated {
        let intro = &expression.intro;
        let collection = self.value(&intro.collection_expr)?;
        let mut list = Vec::new();
        let mut map: Map<String, Value> = Map::new();
        for (key, value) in self.entries(collection, span(&intro.collection_expr))? {
            let mut scope = self.with(intro.value_var.as_str(), value);
            if let Some(name) = &intro.key_var {
                scope = scope.with(name.as_str(), key);
            }
            if let Some(condition) = &expression.cond
                && functions::boolean(&scope.value(&condition.expr)?) != Some(true)
            {
                continue;
            }
            let value = scope.value(&expression.value_expr)?;
            let Some(key) = &expression.key_expr else {
                list.push(value);
                continue;
            };
            let name = functions::to_text(&scope.value(key)?).unwrap_or_default();
            if expression.grouping {
                match map.entry(name).or_insert_with(|| Value::Array(Vec::new())) {
                    Value::Array(items) => items.push(value),
                    other => *other = value,
                }
            } else {
                map.insert(name, value);
            }
        }
        Ok(if expression.key_expr.is_some() { Value::Object(map) } else { Value::Array(list) })
    }

    fn entries(&self, collection: Value, range: Range<usize>) -> Result<Vec<(Value, Value)>, Diagnostics> {
        match collection {
            Value::Array(items) => {
                Ok(items.into_iter().enumerate().map(|(at, item)| (Value::from(at), item)).collect())
            }
            Value::Object(map) => Ok(map.into_iter().map(|(k, v)| (Value::String(k), v)).collect()),
            _ => Err(self.source.error(
                range,
                "Iteration over non-iterable value",
                "A value of this type cannot be used as the collection in a 'for' expression.",
            )),
        }
    }

    fn traverse(&self, value: Value, operators: &[(&TraversalOperator, Option<Range<usize>>)]) -> Evaluated {
        let Some(((operator, range), rest)) = operators.split_first() else { return Ok(value) };
        let range = range.clone().unwrap_or_default();
        let next = match operator {
            TraversalOperator::GetAttr(name) => {
                // The position of an attribute is the dot and the name.
                let range = name.span().map_or(range, |name| name.start.saturating_sub(1)..name.end);
                match value {
                    Value::Object(mut map) => map.shift_remove(name.as_str()).ok_or_else(|| {
                        let detail =
                            format!("This object does not have an attribute named {:?}.", name.as_str());
                        self.source.error(range, "Unsupported attribute", detail)
                    })?,
                    other => {
                        let detail = format!(
                            "Can't access attributes on a primitive-typed value ({}).",
                            functions::type_name(&other)
                        );
                        return Err(self.source.error(range, "Unsupported attribute", detail));
                    }
                }
            }
            TraversalOperator::Index(index) => self.index(value, self.value(index)?, range)?,
            TraversalOperator::LegacyIndex(index) => self.index(value, Value::from(*index.value()), range)?,
            TraversalOperator::AttrSplat(_) | TraversalOperator::FullSplat(_) => {
                let items = match value {
                    Value::Array(items) => items,
                    Value::Null => Vec::new(),
                    other => vec![other],
                };
                let mapped: Result<Vec<_>, _> =
                    items.into_iter().map(|item| self.traverse(item, rest)).collect();
                return mapped.map(Value::Array);
            }
        };
        self.traverse(next, rest)
    }

    /// An unknown name is finally a string, so operators after a splat find nothing there.
    fn unknown(&self, operators: &[(&TraversalOperator, Option<Range<usize>>)]) -> Result<(), Diagnostics> {
        let splat = |o: &TraversalOperator| {
            matches!(o, TraversalOperator::AttrSplat(_) | TraversalOperator::FullSplat(_))
        };
        let after = operators.iter().skip_while(|(operator, _)| !splat(operator)).nth(1);
        match after {
            Some((TraversalOperator::GetAttr(_), _)) => {
                self.traverse(Value::String(String::new()), &operators[operators.len() - 1..]).map(|_| ())
            }
            _ => Ok(()),
        }
    }

    fn index(&self, value: Value, index: Value, range: Range<usize>) -> Evaluated {
        let found = match &value {
            Value::Array(items) => {
                functions::number(&index).and_then(|at| items.get(at as usize).filter(|_| at >= 0.0).cloned())
            }
            Value::Object(map) => functions::to_text(&index).and_then(|key| map.get(&key).cloned()),
            _ => None,
        };
        found.ok_or_else(|| {
            self.source.error(
                range,
                "Invalid index",
                "The given key does not identify an element in this collection value.",
            )
        })
    }

    /// A template's value: for a single interpolation the value itself, otherwise a string.
    pub(super) fn template<'t>(&self, elements: impl Iterator<Item = &'t Element>) -> Evaluated {
        let elements: Vec<&Element> = elements.collect();
        if let [Element::Interpolation(only)] = elements[..] {
            return match &only.expr {
                Expression::Variable(_) | Expression::Traversal(_) => {
                    self.interpolated(elements[0], &only.expr)
                }
                expression => self.value(expression),
            };
        }
        let mut text = String::new();
        let mut trim = false;
        for element in elements {
            let (strip, piece) = match element {
                Element::Literal(literal) => {
                    let literal = literal.as_str();
                    text.push_str(if trim { literal.trim_start() } else { literal });
                    trim = false;
                    continue;
                }
                Element::Interpolation(interpolation) => {
                    let value = self.interpolated(element, &interpolation.expr)?;
                    let range = span(&interpolation.expr);
                    let piece = self.string(
                        &value,
                        range,
                        "Invalid template interpolation value",
                        if value.is_null() {
                            "The expression result is null. Cannot include a null value in a string template."
                        } else {
                            "Cannot include the given value in a string template: string required."
                        },
                    )?;
                    (interpolation.strip, piece)
                }
                Element::Directive(directive) => (Strip::None, self.directive(directive)?),
            };
            if matches!(strip, Strip::Start | Strip::Both) {
                text.truncate(text.trim_end().len());
            }
            trim = matches!(strip, Strip::End | Strip::Both);
            text.push_str(&piece);
        }
        Ok(Value::String(text))
    }

    /// The value of an interpolation; for an unknown name its exact text, including spaces.
    fn interpolated(&self, element: &Element, expression: &Expression) -> Evaluated {
        let root = match expression {
            Expression::Variable(name) => Some(name.as_str()),
            Expression::Traversal(traversal) => match &traversal.expr {
                Expression::Variable(name) => Some(name.as_str()),
                _ => None,
            },
            _ => None,
        };
        match (root, element.span()) {
            (Some(root), Some(range)) if !self.names.contains_key(root) => {
                self.value(expression)?;
                Ok(Value::String(self.source.slice(range).to_owned()))
            }
            _ => self.value(expression),
        }
    }

    fn directive(&self, directive: &Directive) -> Result<String, Diagnostics> {
        match directive {
            Directive::If(directive) => {
                let condition = self.value(&directive.if_expr.cond_expr)?;
                let branch = match (functions::boolean(&condition), &directive.else_expr) {
                    (Some(true), _) => &directive.if_expr.template,
                    (Some(false), Some(other)) => &other.template,
                    (Some(false), None) => return Ok(String::new()),
                    (None, _) => {
                        return Err(self.source.error(
                            span(&directive.if_expr.cond_expr),
                            "Incorrect condition type",
                            "The condition expression must be of type bool.",
                        ));
                    }
                };
                Ok(functions::to_text(&self.template(branch.iter())?).unwrap_or_default())
            }
            Directive::For(directive) => {
                let intro = &directive.for_expr;
                let collection = self.value(&intro.collection_expr)?;
                let mut text = String::new();
                for (key, value) in self.entries(collection, span(&intro.collection_expr))? {
                    let mut scope = self.with(intro.value_var.as_str(), value);
                    if let Some(name) = &intro.key_var {
                        scope = scope.with(name.as_str(), key);
                    }
                    text += &functions::to_text(&scope.template(intro.template.iter())?).unwrap_or_default();
                }
                Ok(text)
            }
        }
    }

    fn string(
        &self,
        value: &Value,
        range: Range<usize>,
        summary: &str,
        detail: &str,
    ) -> Result<String, Diagnostics> {
        functions::to_text(value).ok_or_else(|| self.source.error(range, summary, detail))
    }
}

fn literal(name: &str) -> Value {
    Value::String(format!("${{{name}}}"))
}
