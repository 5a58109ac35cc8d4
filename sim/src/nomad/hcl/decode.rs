//! Decodes blocks by the schema into the API's JSON.

use std::collections::BTreeMap;
use std::ops::Range;

use hcl::edit::expr::Expression;
use hcl::edit::structure::{Attribute, Block, Body, Structure};
use hcl::edit::{Decorated, Ident, Span};
use serde_json::{Map, Value, json};

use super::super::schema::{Field, IDENTITY, JOB, Kind, PORT, Type, Unset};
use super::convert::{attribute_field, block_exists, convert, is_block, short_form, string_item, suggestion};
use super::eval::Scope;
use super::functions;
use super::source::{Diagnostics, Source};

/// The place of a name.
pub fn place(name: &Decorated<Ident>) -> Range<usize> {
    name.span().unwrap_or_default()
}

/// The place of a block's type and labels.
pub fn header(block: &Block) -> Range<usize> {
    let start = place(&block.ident);
    let end = block.labels.iter().filter_map(|label| label.span()).map(|label| label.end).max();
    start.start..end.unwrap_or(start.end)
}

/// What stands for an unset field; nothing where there is no such field.
pub fn unset(unset: Unset) -> Option<Value> {
    match unset {
        Unset::Absent => None,
        Unset::Null => Some(Value::Null),
        Unset::Bool(value) => Some(json!(value)),
        Unset::Int(value) => Some(json!(value)),
        Unset::Str(value) => Some(json!(value)),
        Unset::Empty => Some(json!([])),
    }
}

/// A block as it stands in a body, or as a `dynamic` block makes it.
struct Item<'b, 's> {
    name: &'b str,
    place: Range<usize>,
    labels: Vec<(String, Range<usize>)>,
    /// The opening brace.
    open: usize,
    body: &'b Body,
    scope: Scope<'s>,
}

/// Decodes, collecting what is wrong.
pub struct Decoder<'s> {
    source: &'s Source<'s>,
    /// What was wrong so far.
    pub errors: Diagnostics,
}

impl<'s> Decoder<'s> {
    /// A decoder of this text.
    pub fn new(source: &'s Source<'s>) -> Decoder<'s> {
        Decoder { source, errors: Diagnostics::new() }
    }

    /// The job. Its label is its ID and its name, unless they are set.
    pub fn job(&mut self, scope: &Scope<'s>, block: &Block) -> Value {
        let item = self.item(scope, block);
        let Some(label) = self.label(&item) else { return Value::Null };
        let mut job = self.body(&JOB, &item);
        for key in ["ID", "Name"] {
            if job.get(key).is_none_or(Value::is_null) {
                job.insert(key.into(), json!(label));
            }
        }
        Value::Object(job)
    }

    fn item<'b>(&self, scope: &Scope<'s>, block: &'b Block) -> Item<'b, 's> {
        let header = header(block);
        let brace = self.source.text().get(header.end..).and_then(|rest| rest.find('{'));
        Item {
            name: block.ident.as_str(),
            place: place(&block.ident),
            labels: block
                .labels
                .iter()
                .map(|label| (label.as_str().to_owned(), label.span().unwrap_or_default()))
                .collect(),
            open: header.end + brace.unwrap_or_default(),
            body: &block.body,
            scope: scope.clone(),
        }
    }

    fn fail(&mut self, range: Range<usize>, summary: &str, detail: impl AsRef<str>) {
        let error = self.source.error(range, summary, detail);
        self.errors.extend(error);
    }

    /// The one label a block must have.
    fn label(&mut self, item: &Item<'_, 's>) -> Option<String> {
        let name = item.name;
        if let Some((_, extra)) = item.labels.get(1) {
            let detail = format!("Only 1 labels (name) are expected for {name} blocks.");
            self.fail(extra.clone(), &format!("Extraneous label for {name}"), detail);
            return None;
        }
        if item.labels.is_empty() {
            let detail = format!("All {name} blocks must have 1 labels (name).");
            self.fail(item.open..item.open + 1, &format!("Missing name for {name}"), detail);
        }
        item.labels.first().map(|(label, _)| label.clone())
    }

    fn body(&mut self, ty: &'static Type, item: &Item<'_, 's>) -> Map<String, Value> {
        let mut object: Map<String, Value> =
            ty.fields.iter().filter_map(|f| Some((f.json.to_owned(), unset(f.unset)?))).collect();
        let mut seen: BTreeMap<&str, Range<usize>> = BTreeMap::new();
        let mut shorts = Vec::new();
        for structure in item.body {
            match structure {
                Structure::Attribute(attribute) => {
                    let name = attribute.key.as_str();
                    if let Some(short) = short_form(item.name, name) {
                        shorts.push((short, attribute));
                    } else if let Some(field) = attribute_field(ty, name) {
                        if let Some(value) = self.attribute(&item.scope, field, &attribute.value) {
                            object.insert(field.json.into(), value);
                        }
                    } else {
                        self.unsupported_argument(ty, item.name, attribute);
                    }
                }
                Structure::Block(block) => {
                    for inner in self.expand(&item.scope, block) {
                        let first = seen.get(inner.name).cloned();
                        seen.entry(inner.name).or_insert_with(|| inner.place.clone());
                        self.nested(ty, item.name, &mut object, &inner, first);
                    }
                }
            }
        }
        for (operator, attribute) in shorts {
            self.short(&item.scope, operator, attribute, &mut object);
        }
        self.finish(item, &mut object);
        object
    }

    /// What a block's kind asks for beyond its schema.
    fn finish(&mut self, item: &Item<'_, 's>, object: &mut Map<String, Value>) {
        let required = match item.name {
            "lifecycle" => Some("hook"),
            "scaling" => Some("max"),
            _ => None,
        };
        if let Some(name) = required.filter(|name| !item.body.has_attribute(name)) {
            let at = match item.body.iter().next() {
                Some(first) => first.span().unwrap_or_default().start,
                None => item.open,
            };
            let detail = format!("The argument {name:?} is required, but no definition was found.");
            self.fail(at..at, "Missing required argument", detail);
        }
        if matches!(item.name, "constraint" | "affinity") && object["Operand"] == "" {
            object.insert("Operand".into(), json!("="));
        }
    }

    /// A `dynamic` block becomes as many blocks as its collection has items; any other is itself.
    fn expand<'b>(&mut self, scope: &Scope<'s>, block: &'b Block) -> Vec<Item<'b, 's>> {
        let item = self.item(scope, block);
        if item.name != "dynamic" {
            return vec![item];
        }
        let Some(name) = block.labels.first().map(|label| label.as_str()) else { return Vec::new() };
        let Some(content) = block.body.get_blocks("content").next() else { return Vec::new() };
        let collection = block.body.get_attribute("for_each").map(|each| scope.value(&each.value));
        let entries: Vec<(Value, Value)> = match collection {
            Some(Ok(Value::Array(items))) => {
                items.into_iter().enumerate().map(|(at, value)| (Value::from(at), value)).collect()
            }
            Some(Ok(Value::Object(map))) => map.into_iter().map(|(k, v)| (Value::String(k), v)).collect(),
            Some(Ok(_)) | None => {
                self.fail(
                    item.place,
                    "Missing required argument",
                    "The argument \"for_each\" is required, but no definition was found.",
                );
                return Vec::new();
            }
            Some(Err(errors)) => {
                self.errors.extend(errors);
                return Vec::new();
            }
        };
        let iterator = block.body.get_attribute("iterator").and_then(|i| i.value.as_variable());
        let iterator = iterator.map_or(name, |ident| ident.as_str());
        let mut items = Vec::new();
        for (key, value) in entries {
            let mut inner = scope.clone();
            inner.names.insert(iterator.to_owned(), json!({"key": key, "value": value}));
            let labels = match block.body.get_attribute("labels").map(|labels| inner.value(&labels.value)) {
                Some(Ok(Value::Array(labels))) => labels.iter().filter_map(functions::to_text).collect(),
                Some(Err(errors)) => {
                    self.errors.extend(errors);
                    Vec::new()
                }
                _ => Vec::new(),
            };
            items.push(Item {
                name,
                place: place(&block.ident),
                labels: labels.into_iter().map(|label: String| (label, 0..0)).collect(),
                open: item.open,
                body: &content.body,
                scope: inner,
            });
        }
        items
    }

    fn nested(
        &mut self,
        ty: &'static Type,
        parent: &str,
        object: &mut Map<String, Value>,
        item: &Item<'_, 's>,
        first: Option<Range<usize>>,
    ) {
        if self.goes_where_it_says(parent, object, item) {
            return;
        }
        let Some(field) = ty.fields.iter().find(|f| f.hcl == item.name && is_block(f.kind)) else {
            return self.unsupported_block(ty, item);
        };
        let single = matches!(field.kind, Kind::One(_) | Kind::Map | Kind::Any);
        if let Some(first) = first.filter(|_| single) {
            let name = item.name;
            let detail = format!(
                "Only one {name} block is allowed. Another was defined at {}.",
                self.source.place(first)
            );
            return self.fail(item.place.clone(), &format!("Duplicate {name} block"), detail);
        }
        match field.kind {
            Kind::One(inner) => {
                let value = self.body(inner, item);
                object.insert(field.json.into(), Value::Object(value));
            }
            Kind::Many(inner) => {
                let value = self.body(inner, item);
                push(object, field.json, Value::Object(value));
            }
            Kind::Named(inner, label_field) | Kind::Keyed(inner, label_field) => {
                let Some(label) = self.label(item) else { return };
                let mut value = self.body(inner, item);
                value.insert(label_field.into(), json!(label));
                if matches!(field.kind, Kind::Keyed(..)) {
                    let map = object.entry(field.json).or_insert(Value::Null);
                    if map.is_null() {
                        *map = json!({});
                    }
                    map[&label] = Value::Object(value);
                } else {
                    push(object, field.json, Value::Object(value));
                }
            }
            Kind::Map => {
                let value = self.map_block(item);
                object.insert(field.json.into(), value);
            }
            _ => {
                let value = self.anything(&item.scope, item.body);
                object.insert(field.json.into(), value);
            }
        }
    }

    /// Three blocks go where their content says. Whether this is one of them.
    fn goes_where_it_says(
        &mut self,
        parent: &str,
        object: &mut Map<String, Value>,
        item: &Item<'_, 's>,
    ) -> bool {
        match (parent, item.name) {
            ("network", "port") => {
                let Some(label) = self.label(item) else { return true };
                let mut port = self.body(&PORT, item);
                let list = if port["Value"] == 0 { "DynamicPorts" } else { "ReservedPorts" };
                port.insert("Label".into(), json!(label));
                push(object, list, Value::Object(port));
            }
            ("task", "identity") => {
                let identity = self.body(&IDENTITY, item);
                let named = !matches!(identity["Name"].as_str(), Some("" | "default"));
                if named || object.get("Identity").is_some_and(|i| !i.is_null()) {
                    push(object, "Identities", Value::Object(identity));
                } else {
                    object.insert("Identity".into(), Value::Object(identity));
                }
            }
            ("job" | "group", "vault") => {}
            _ => return false,
        }
        true
    }

    /// `env { … }`: strings by name.
    fn map_block(&mut self, item: &Item<'_, 's>) -> Value {
        let mut map = Map::new();
        for structure in item.body {
            match structure {
                Structure::Attribute(attribute) => {
                    let Some(value) = self.known(&item.scope, &attribute.value) else { continue };
                    match string_item(&value) {
                        Ok(text) => {
                            map.insert(attribute.key.as_str().into(), json!(text));
                        }
                        Err(why) => self.unsuitable(&attribute.value, &why),
                    }
                }
                Structure::Block(block) => {
                    let open = self.item(&item.scope, block).open;
                    let detail = "Unsuitable value: string required, but have tuple";
                    self.fail(open..open + 1, "Unsuitable value type", detail);
                }
            }
        }
        Value::Object(map)
    }

    /// A driver's configuration: blocks become lists of objects, and so do objects.
    fn anything(&mut self, scope: &Scope<'s>, body: &Body) -> Value {
        let mut object = Map::new();
        for structure in body {
            match structure {
                Structure::Attribute(attribute) => match scope.value(&attribute.value) {
                    Ok(Value::Null) => {}
                    Ok(value @ Value::Object(_)) => {
                        object.insert(attribute.key.as_str().into(), json!([value]));
                    }
                    Ok(value) => {
                        object.insert(attribute.key.as_str().into(), value);
                    }
                    Err(errors) => self.errors.extend(errors),
                },
                Structure::Block(block) => {
                    for item in self.expand(scope, block) {
                        let mut inner = self.anything(&item.scope, item.body);
                        for (label, _) in item.labels.iter().rev() {
                            inner = json!({label.as_str(): [inner]});
                        }
                        push(&mut object, item.name, inner);
                    }
                }
            }
        }
        Value::Object(object)
    }

    /// A constraint's short form, such as `version = ">= 1"`.
    fn short(
        &mut self,
        scope: &Scope<'s>,
        operator: &str,
        attribute: &Attribute,
        object: &mut Map<String, Value>,
    ) {
        let Some(value) = self.known(scope, &attribute.value) else { return };
        let text = functions::to_text(&value).unwrap_or_default();
        object.insert("Operand".into(), json!(operator));
        let side = if operator == "distinct_property" { "LTarget" } else { "RTarget" };
        object.insert(side.into(), json!(text));
    }

    /// An expression's value. One that has none is an error, and then unsuitable besides.
    fn known(&mut self, scope: &Scope<'s>, expression: &Expression) -> Option<Value> {
        match scope.value(expression) {
            Ok(value) => Some(value),
            Err(errors) => {
                self.errors.extend(errors);
                self.unsuitable(expression, "value: value must be known");
                None
            }
        }
    }

    fn unsuitable(&mut self, expression: &Expression, why: &str) {
        let range = self.source.start(expression);
        self.fail(range, "Unsuitable value type", format!("Unsuitable {why}"));
    }

    fn attribute(&mut self, scope: &Scope<'s>, field: &Field, expression: &Expression) -> Option<Value> {
        let value = self.known(scope, expression)?;
        if value.is_null() {
            return None;
        }
        match convert(field.kind, value) {
            Ok(value) => Some(value),
            Err(why) => {
                self.unsuitable(expression, &why);
                None
            }
        }
    }

    fn unsupported_argument(&mut self, ty: &Type, block: &str, attribute: &Attribute) {
        let name = attribute.key.as_str();
        let hint = if block_exists(ty, block, name) {
            format!(" Did you mean to define a block of type {name:?}?")
        } else {
            let names = ty.fields.iter().filter(|f| !is_block(f.kind)).map(|f| f.hcl);
            suggestion(name, names).map_or_else(String::new, |near| format!(" Did you mean {near:?}?"))
        };
        let detail = format!("An argument named {name:?} is not expected here.{hint}");
        self.fail(place(&attribute.key), "Unsupported argument", detail);
    }

    fn unsupported_block(&mut self, ty: &'static Type, item: &Item<'_, 's>) {
        let name = item.name;
        let hint = if attribute_field(ty, name).is_some() {
            format!(
                " Did you mean to define argument {name:?}? If so, use the equals sign to assign it a value."
            )
        } else {
            let names = ty.fields.iter().filter(|f| is_block(f.kind)).map(|f| f.hcl);
            suggestion(name, names).map_or_else(String::new, |near| format!(" Did you mean {near:?}?"))
        };
        let detail = format!("Blocks of type {name:?} are not expected here.{hint}");
        self.fail(item.place.clone(), "Unsupported block type", detail);
    }
}

fn push(object: &mut Map<String, Value>, key: &str, value: Value) {
    match object.entry(key).or_insert(Value::Null) {
        Value::Array(items) => items.push(value),
        other => *other = json!([value]),
    }
}
