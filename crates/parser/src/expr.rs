//! Expressions: precedence climbing over operators, then what stands between them.

use crate::ast::{
    AggregateExpr, AggregateOp, BinaryExpr, BinaryOp, Call, Cardinality, Expr, Fill, NumberLiteral,
    ParenExpr, PosRange, UnaryExpr, UnaryOp, VectorMatching,
};
use crate::functions::Function;
use crate::literal;
use crate::parser::{Context, Parsed, Parser, fail};
use crate::token::{Keyword, Token, TokenKind};

/// An expression and how high its tree is.
pub(crate) struct Node {
    pub expr: Expr,
    pub height: usize,
}

/// How tight an operator binds.
fn precedence(op: BinaryOp) -> u8 {
    use BinaryOp::{Add, And, Atan2, Div, Mod, Mul, Or, Pow, Sub, Unless};
    match op {
        Or => 1,
        And | Unless => 2,
        Add | Sub => 4,
        Mul | Div | Mod | Atan2 => 5,
        Pow => POW,
        // Comparisons and trims.
        _ => 3,
    }
}

/// The precedence of `^`, the only operator that groups to the right. A sign binds looser.
const POW: u8 = 6;

impl Parser<'_> {
    /// Reads an expression whose operators bind at least as tight as `min`.
    pub(crate) fn expression(&mut self, min: u8) -> Parsed<Node> {
        self.deeper(|parser| {
            let mut lhs = parser.signed()?;
            while let TokenKind::Operator(op) = parser.peek()?.kind {
                let binds = precedence(op);
                if binds < min {
                    break;
                }
                parser.next()?;
                lhs = parser.binary(lhs, op, if op == BinaryOp::Pow { POW } else { binds + 1 })?;
            }
            Ok(lhs)
        })
    }

    /// Reads the rest of a binary expression, behind its operator.
    fn binary(&mut self, lhs: Node, op: BinaryOp, min: u8) -> Parsed<Node> {
        let return_bool = self.accept(TokenKind::Keyword(Keyword::Bool))?.is_some();
        let matching = self.matching()?;
        let rhs = self.expression(min)?;
        let pos = lhs.expr.pos().to(rhs.expr.pos());
        if matching.fill != Fill::default() && !self.options.fill_modifiers {
            return fail(pos, "binop fill modifiers are experimental and not enabled".to_owned());
        }
        let height = lhs.height.max(rhs.height) + 1;
        let binary = BinaryExpr {
            op,
            lhs: Box::new(lhs.expr),
            rhs: Box::new(rhs.expr),
            matching: Some(matching),
            return_bool,
            pos,
        };
        self.node(Expr::Binary(binary), height)
    }

    /// Reads `on (…) group_left (…) fill (…)`, all of which may be absent.
    fn matching(&mut self) -> Parsed<VectorMatching> {
        let mut matching = VectorMatching::default();
        if let TokenKind::Keyword(word @ (Keyword::On | Keyword::Ignoring)) = self.peek()?.kind {
            self.next()?;
            matching.on = word == Keyword::On;
            matching.labels = self.label_names()?;
            if let TokenKind::Keyword(side @ (Keyword::GroupLeft | Keyword::GroupRight)) = self.peek()?.kind {
                self.next()?;
                let left = side == Keyword::GroupLeft;
                matching.cardinality = if left { Cardinality::ManyToOne } else { Cardinality::OneToMany };
                let next = self.peek()?;
                if next.kind == TokenKind::LeftParen {
                    matching.include = self.label_names()?;
                } else if !begins_right_side(next) {
                    return self.unexpected_in(next, "grouping opts", "\"(\"");
                }
            }
        }
        matching.fill = self.fill()?;
        Ok(matching)
    }

    /// Reads `fill (x)`, or `fill_left (x)` and `fill_right (x)` in any order.
    fn fill(&mut self) -> Parsed<Fill> {
        let mut fill = Fill::default();
        while let TokenKind::Keyword(word @ (Keyword::Fill | Keyword::FillLeft | Keyword::FillRight)) =
            self.peek()?.kind
        {
            let (left, right) = (word != Keyword::FillRight, word != Keyword::FillLeft);
            if left && fill.lhs.is_some() || right && fill.rhs.is_some() {
                break;
            }
            self.next()?;
            self.expect(TokenKind::LeftParen)?;
            let value = self.signed_number()?;
            self.expect(TokenKind::RightParen)?;
            if left {
                fill.lhs = Some(value);
            }
            if right {
                fill.rhs = Some(value);
            }
        }
        Ok(fill)
    }

    /// Reads signs and what they stand before. A loop, not a recursion, as signs may be many.
    fn signed(&mut self) -> Parsed<Node> {
        let mut signs: Vec<(UnaryOp, Token)> = Vec::new();
        loop {
            let token = self.peek()?;
            match sign(token) {
                Some(op) => signs.push((op, self.next()?)),
                None => break,
            }
            self.count_node(token.pos())?;
        }
        if signs.is_empty() {
            return self.postfixed();
        }
        let mut node = self.expression(POW)?;
        for (op, token) in signs.into_iter().rev() {
            node = self.apply_sign(op, token, node)?;
        }
        Ok(node)
    }

    fn apply_sign(&mut self, op: UnaryOp, token: Token, node: Node) -> Parsed<Node> {
        if let Expr::Number(mut number) = node.expr {
            if op == UnaryOp::Minus {
                number.value = -number.value;
            }
            number.pos.start = token.start;
            return Ok(Node { expr: Expr::Number(number), height: node.height });
        }
        let pos = token.pos().to(node.expr.pos());
        let height = node.height + 1;
        self.limit_depth(height, pos)?;
        Ok(Node { expr: Expr::Unary(UnaryExpr { op, expr: Box::new(node.expr), pos }), height })
    }

    /// Reads an operand and what may follow it: ranges and modifiers.
    fn postfixed(&mut self) -> Parsed<Node> {
        let mut node = self.operand()?;
        loop {
            let token = self.peek()?;
            node = match token.kind {
                TokenKind::LeftBracket => self.range(node)?,
                TokenKind::Keyword(Keyword::Offset) => self.offset(node)?,
                TokenKind::At => self.at(node)?,
                TokenKind::Keyword(Keyword::Anchored | Keyword::Smoothed) => self.range_modifier(node)?,
                _ => return Ok(node),
            };
        }
    }

    fn operand(&mut self) -> Parsed<Node> {
        let token = self.peek()?;
        match token.kind {
            TokenKind::Number | TokenKind::Duration => {
                let number = self.number()?;
                self.node(Expr::Number(number), 1)
            }
            TokenKind::String => {
                self.next()?;
                let string = literal::string(self.text(token), token.pos());
                self.node(Expr::String(string), 1)
            }
            TokenKind::LeftParen => self.paren(),
            TokenKind::LeftBrace => self.selector_node(None),
            kind if kind.is_metric_name() => self.named(),
            _ => self.unexpected(token),
        }
    }

    fn paren(&mut self) -> Parsed<Node> {
        let open = self.next()?;
        let inner = self.expression(0)?;
        let close = self.expect(TokenKind::RightParen)?;
        let paren = ParenExpr { expr: Box::new(inner.expr), pos: open.pos().to(close.pos()) };
        self.node(Expr::Paren(paren), inner.height + 1)
    }

    /// Reads what starts with a name: an aggregation, a call, or a selector.
    fn named(&mut self) -> Parsed<Node> {
        let name = self.next()?;
        let next = self.peek()?.kind;
        let grouped = matches!(next, TokenKind::Keyword(Keyword::By | Keyword::Without));
        match name.kind {
            TokenKind::Aggregate(op) if grouped || next == TokenKind::LeftParen => {
                self.within(Context::AGGREGATION, |parser| parser.aggregation(op, name))
            }
            TokenKind::Identifier
            | TokenKind::Keyword(
                Keyword::Start
                | Keyword::End
                | Keyword::Step
                | Keyword::Range
                | Keyword::MaxOf
                | Keyword::MinOf,
            ) if next == TokenKind::LeftParen => self.call(name),
            _ => self.selector_node(Some(name)),
        }
    }

    fn selector_node(&mut self, name: Option<Token>) -> Parsed<Node> {
        let selector = self.selector_after(name)?;
        self.node(Expr::Vector(selector), 1)
    }

    fn call(&mut self, name: Token) -> Parsed<Node> {
        let (args, close, height) = self.arguments()?;
        let word = self.text(name);
        let quoted = tidewatch_model::quote(word);
        let Some(function) = Function::by_name(word) else {
            return fail(name.pos(), format!("unknown function with name {quoted}"));
        };
        if function.experimental && !self.options.experimental_functions {
            return fail(name.pos(), format!("function {quoted} is not enabled"));
        }
        let call = Call { function, args, pos: name.pos().to(close.pos()) };
        self.node(Expr::Call(call), height + 1)
    }

    /// Reads arguments in parentheses: them, the closing parenthesis, and the greatest height.
    fn arguments(&mut self) -> Parsed<(Vec<Expr>, Token, usize)> {
        self.expect(TokenKind::LeftParen)?;
        let (mut args, mut height) = (Vec::new(), 0);
        if let Some(close) = self.accept(TokenKind::RightParen)? {
            return Ok((args, close, height));
        }
        loop {
            let arg = self.expression(0)?;
            args.push(arg.expr);
            height = height.max(arg.height);
            let token = self.next()?;
            match token.kind {
                TokenKind::RightParen => return Ok((args, token, height)),
                TokenKind::Comma if !self.expression_follows()? => {
                    let message = "trailing commas not allowed in function call args".to_owned();
                    return fail(token.pos(), message);
                }
                TokenKind::Comma => {}
                _ => return self.unexpected(token),
            }
        }
    }

    fn expression_follows(&mut self) -> Parsed<bool> {
        let token = self.peek()?;
        let operand = matches!(
            token.kind,
            TokenKind::Number
                | TokenKind::Duration
                | TokenKind::String
                | TokenKind::LeftParen
                | TokenKind::LeftBrace
        );
        Ok(operand || sign(token).is_some() || token.kind.is_metric_name())
    }

    fn aggregation(&mut self, op: AggregateOp, name: Token) -> Parsed<Node> {
        let mut grouping = self.grouping()?;
        let (args, mut close, height) = self.arguments()?;
        if grouping.is_none() {
            grouping = self.grouping()?;
            if let Some(grouping) = &grouping {
                close = grouping.close;
            }
        }
        let pos = name.pos().to(close.pos());
        let (param, expr) = self.aggregation_operands(op, args, pos)?;
        let (without, labels) = grouping.map_or_else(Default::default, |g| (g.without, g.labels));
        let aggregate = AggregateExpr {
            op,
            expr: Box::new(expr),
            param: param.map(Box::new),
            grouping: labels,
            without,
            pos,
        };
        self.node(Expr::Aggregate(aggregate), height + 1)
    }

    /// Splits the arguments of an aggregation in its parameter and its vector.
    fn aggregation_operands(
        &self,
        op: AggregateOp,
        args: Vec<Expr>,
        pos: PosRange,
    ) -> Parsed<(Option<Expr>, Expr)> {
        if args.is_empty() {
            return fail(pos, "no arguments for aggregate expression provided".to_owned());
        }
        if op.experimental() && !self.options.experimental_functions {
            let name = op.as_str();
            return fail(
                pos,
                format!(
                    "{name}() is experimental and must be enabled with \
                     --enable-feature=promql-experimental-functions"
                ),
            );
        }
        let (count, wanted) = (args.len(), 1 + usize::from(op.parameter().is_some()));
        if count != wanted {
            return fail(
                pos,
                format!(
                    "wrong number of arguments for aggregate expression provided, \
                     expected {wanted}, got {count}"
                ),
            );
        }
        let mut args = args.into_iter();
        let first = args.next().expect("counted above");
        Ok(match args.next() {
            Some(second) => (Some(first), second),
            None => (None, first),
        })
    }

    fn grouping(&mut self) -> Parsed<Option<Grouping>> {
        let TokenKind::Keyword(word @ (Keyword::By | Keyword::Without)) = self.peek()?.kind else {
            return Ok(None);
        };
        self.next()?;
        let (labels, close) = self.label_list()?;
        Ok(Some(Grouping { without: word == Keyword::Without, labels, close }))
    }

    /// Reads `(a, b)`.
    fn label_names(&mut self) -> Parsed<Vec<String>> {
        Ok(self.label_list()?.0)
    }

    fn label_list(&mut self) -> Parsed<(Vec<String>, Token)> {
        const WITHIN: &str = "grouping opts";
        let open = self.next()?;
        if open.kind != TokenKind::LeftParen {
            return self.unexpected_in(open, WITHIN, "\"(\"");
        }
        let mut labels = Vec::new();
        loop {
            let token = self.next()?;
            let text = self.text(token);
            match token.kind {
                TokenKind::RightParen => return Ok((labels, token)),
                TokenKind::String => labels.push(literal::unquote(text)),
                kind if kind.is_label_name() => labels.push(text.to_owned()),
                _ => return self.unexpected_in(token, WITHIN, "label"),
            }
            self.count_node(token.pos())?;
            if labels.last().is_some_and(String::is_empty) {
                return fail(token.pos(), "invalid label name for grouping: \"\"".to_owned());
            }
            let token = self.next()?;
            match token.kind {
                TokenKind::RightParen => return Ok((labels, token)),
                TokenKind::Comma => {}
                _ => return self.unexpected_in(token, WITHIN, "\",\" or \")\""),
            }
        }
    }

    /// Reads a number or a duration, the latter in seconds.
    pub(crate) fn number(&mut self) -> Parsed<NumberLiteral> {
        let token = self.next()?;
        let (text, pos) = (self.text(token), token.pos());
        let (value, duration) = match token.kind {
            TokenKind::Number => (
                literal::number(text).or_else(|why| fail(pos, format!("error parsing number: {why}")))?,
                false,
            ),
            TokenKind::Duration => match tidewatch_model::parse_duration_ms(text) {
                Ok(ms) => (ms as f64 / 1000.0, true),
                Err(error) => return fail(pos, error.message),
            },
            _ => return self.unexpected(token),
        };
        Ok(NumberLiteral { value, duration, pos })
    }

    /// Reads a number or a duration with or without a sign.
    pub(crate) fn signed_number(&mut self) -> Parsed<f64> {
        let sign = sign(self.peek()?);
        if sign.is_some() {
            self.next()?;
        }
        let value = self.number()?.value;
        Ok(if sign == Some(UnaryOp::Minus) { -value } else { value })
    }

    /// Counts a new node and bounds the tree's height.
    pub(crate) fn node(&mut self, expr: Expr, height: usize) -> Parsed<Node> {
        let pos = expr.pos();
        self.count_node(pos)?;
        self.limit_depth(height, pos)?;
        Ok(Node { expr, height })
    }
}

/// `by (…)` or `without (…)`
struct Grouping {
    without: bool,
    labels: Vec<String>,
    close: Token,
}

pub(crate) fn sign(token: Token) -> Option<UnaryOp> {
    match token.kind {
        TokenKind::Operator(BinaryOp::Add) => Some(UnaryOp::Plus),
        TokenKind::Operator(BinaryOp::Sub) => Some(UnaryOp::Minus),
        _ => None,
    }
}

/// Whether a token may stand behind `group_left`: what fills gaps, or the start of an operand.
fn begins_right_side(token: Token) -> bool {
    let operand = matches!(
        token.kind,
        TokenKind::Number | TokenKind::Duration | TokenKind::String | TokenKind::LeftBrace
    );
    let fill =
        matches!(token.kind, TokenKind::Keyword(Keyword::Fill | Keyword::FillLeft | Keyword::FillRight));
    operand || fill || token.kind.is_metric_name() || sign(token).is_some()
}
