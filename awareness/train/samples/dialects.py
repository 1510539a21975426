"""How a constant, a comment and a function are written in the language of a chunk: what hidden lines are made with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from awareness.train.samples.vocabulary import cased


@dataclass(frozen=True)
class Dialect:
    """Templates of one language.

    constants: with {name}, {type} and {value}; types: of numbers without and with a fraction, and of texts. function:
    lines with {name}, {args}, {doc} and {result}; argument: one of {args}, with {}; case: of a function's name.
    default: an argument with a default, or empty where there is no such thing. settings: with {key} and {value}.
    registers: with {key} and {name}. maps: (entry, whole), with {key}, {value}; {name}, {entries}. quotes: of texts.
    """

    suffixes: str
    comment: str
    constants: tuple[str, ...]
    types: tuple[str, str, str]
    function: tuple[str, ...]
    argument: str
    case: str
    default: str
    settings: tuple[str, ...]
    registers: tuple[str, ...]
    maps: tuple[tuple[str, str], ...]
    quotes: str = '"'

    def remark(self, text: str) -> str:
        return f"{self.comment} {text}"

    def constant(self, template: str, name: str, value: str) -> str:
        kind = 2 if value[:1] in "\"'" else 1 if "." in value or "e" in value else 0
        return template.format(name=name, value=value, type=self.types[kind])

    def defined(self, name: str, args: Sequence[str], doc: str, result: str) -> list[str]:
        """Lines of a function; a `doc` that is empty isn't there."""
        listed = ", ".join(args)
        lines = [line for line in self.function if doc or "{doc}" not in line]
        return [line.format(name=name, args=listed, doc=doc, result=result) for line in lines]

    def call(self, words: Sequence[str]) -> str:
        """The name of a function or a variable, no word of it twice."""
        return cased(list(dict.fromkeys(words)), self.case)


PYTHON = Dialect(
    suffixes=".py .pyi .pyx",
    comment="#",
    constants=("{name} = {value}", "{name} = {value}", "{name}: {type} = {value}", "{name}: Final = {value}"),
    types=("int", "float", "str"),
    function=("def {name}({args}):", '    """{doc}"""', "    return {result}"),
    argument="{}",
    case="snake",
    default="{}={}",
    settings=(
        'settings["{key}"] = {value}',
        "settings.{key} = {value}",
        "config['{key}'] = {value}",
        'options.setdefault("{key}", {value})',
        'self.{key} = kwargs.get("{key}", {value})',
    ),
    registers=(
        'register("{key}", {name})',
        'handlers["{key}"] = {name}',
        'registry.add("{key}", {name})',
        'dispatcher.on("{key}", {name})',
        "signals.connect('{key}', {name})",
    ),
    maps=(('"{key}": {value}', "{name} = {{{entries}}}"), ("{key}={value}", "{name} = dict({entries})")),
    quotes="\"'",
)
JAVASCRIPT = Dialect(
    suffixes=".js .mjs .cjs .jsx",
    comment="//",
    constants=("const {name} = {value};", "export const {name} = {value};", "var {name} = {value};"),
    types=("number", "number", "string"),
    function=("// {doc}", "function {name}({args}) {{", "  return {result};", "}}"),
    argument="{}",
    case="camel",
    default="{} = {}",
    settings=("settings.{key} = {value};", "config['{key}'] = {value};", "options.{key} = options.{key} || {value};"),
    registers=("register('{key}', {name});", "emitter.on('{key}', {name});", 'handlers["{key}"] = {name};'),
    maps=(("{key}: {value}", "const {name} = {{ {entries} }};"), ("'{key}': {value}", "var {name} = {{{entries}}};")),
    quotes="\"'",
)
TYPESCRIPT = Dialect(
    suffixes=".ts .tsx .mts .cts",
    comment="//",
    constants=("const {name} = {value};", "export const {name}: {type} = {value};"),
    types=JAVASCRIPT.types,
    function=("/** {doc} */", "export function {name}({args}) {{", "  return {result};", "}}"),
    argument="{}: string",
    case="camel",
    default="{} = {}",
    settings=JAVASCRIPT.settings,
    registers=JAVASCRIPT.registers,
    maps=JAVASCRIPT.maps,
    quotes="\"'",
)
GO = Dialect(
    suffixes=".go",
    comment="//",
    constants=("const {name} = {value}", "var {name} {type} = {value}"),
    types=("int", "float64", "string"),
    function=("// {doc}", "func {name}({args}) any {{", "\treturn {result}", "}}"),
    argument="{} string",
    case="camel",
    default="",
    settings=('settings["{key}"] = {value}', 'viper.SetDefault("{key}", {value})'),
    registers=('Register("{key}", {name})', 'handlers["{key}"] = {name}', 'bus.On("{key}", {name})'),
    maps=(('"{key}": {value}', "var {name} = map[string]any{{{entries}}}"),),
)
C = Dialect(
    suffixes=".c .h .cc .cpp .hpp .cxx .hh",
    comment="//",
    constants=("#define {name} {value}", "static const {type} {name} = {value};"),
    types=("int", "double", "char *"),
    function=("/* {doc} */", "static int {name}({args}) {{", "    return {result};", "}}"),
    argument="int {}",
    case="snake",
    default="",
    settings=('set_option(opts, "{key}", {value});', "opts->{key} = {value};"),
    registers=('register_handler("{key}", {name});', 'signal_connect(bus, "{key}", {name});'),
    maps=(('{{"{key}", {value}}}', "static const struct entry {name}[] = {{{entries}}};"),),
)
JAVA = Dialect(
    suffixes=".java .cs .kt .scala",
    comment="//",
    constants=("private static final {type} {name} = {value};", "public static final {type} {name} = {value};"),
    types=("int", "double", "String"),
    function=("/** {doc} */", "public Object {name}({args}) {{", "    return {result};", "}}"),
    argument="String {}",
    case="camel",
    default="",
    settings=('settings.put("{key}", {value});', 'config.set("{key}", {value});'),
    registers=('register("{key}", this::{name});', 'handlers.put("{key}", this::{name});'),
    maps=(('"{key}", {value}', "static final Map<String, Object> {name} = Map.of({entries});"),),
)
RUST = Dialect(
    suffixes=".rs",
    comment="//",
    constants=("const {name}: {type} = {value};", "pub const {name}: {type} = {value};"),
    types=("i64", "f64", "&str"),
    function=("/// {doc}", "pub fn {name}({args}) -> Value {{", "    {result}", "}}"),
    argument="{}: &str",
    case="snake",
    default="",
    settings=('settings.insert("{key}", {value});', "config.{key} = {value};"),
    registers=('register("{key}", {name});', 'handlers.insert("{key}", {name});'),
    maps=(('("{key}", {value})', "const {name}: &[(&str, Value)] = &[{entries}];"),),
)
RUBY = Dialect(
    suffixes=".rb .rake .gemspec",
    comment="#",
    constants=("{name} = {value}", "{name} = {value}.freeze"),
    types=("", "", ""),
    function=("# {doc}", "def {name}({args})", "  {result}", "end"),
    argument="{}",
    case="snake",
    default="{} = {}",
    settings=("settings[:{key}] = {value}", "config.{key} = {value}", "set :{key}, {value}"),
    registers=("register :{key}, method(:{name})", "on(:{key}, :{name})"),
    maps=(("{key}: {value}", "{name} = {{ {entries} }}"), ("'{key}' => {value}", "{name} = {{ {entries} }}")),
    quotes="\"'",
)
PHP = Dialect(
    suffixes=".php",
    comment="//",
    constants=("const {name} = {value};", "define('{name}', {value});"),
    types=("int", "float", "string"),
    function=("/** {doc} */", "function {name}({args}) {{", "    return {result};", "}}"),
    argument="${}",
    case="camel",
    default="${} = {}",
    settings=("$settings['{key}'] = {value};", "$config->{key} = {value};"),
    registers=("$this->register('{key}', '{name}');", "$bus->on('{key}', [$this, '{name}']);"),
    maps=(("'{key}' => {value}", "const {name} = [{entries}];"),),
    quotes="\"'",
)
_BY_SUFFIX: Mapping[str, Dialect] = {
    suffix: dialect
    for dialect in (PYTHON, JAVASCRIPT, TYPESCRIPT, GO, C, JAVA, RUST, RUBY, PHP)
    for suffix in dialect.suffixes.split()
}


def dialect_of(path: str) -> Dialect:
    """By the name of the file; what is none of these is written to as if it were Python."""
    return _BY_SUFFIX.get(PurePosixPath(path).suffix.lower(), PYTHON)
