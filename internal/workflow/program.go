// Package workflow reads workflows, which are Starlark programs whose calls are
// tasks, and tells what is wrong with one before anything runs.
//
// The language is go.starlark.net's, with sets, while loops and control flow at
// the top level. Names are those that users of concurrent.futures, Dask and
// Coiled know.
package workflow

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"unicode/utf8"

	"go.starlark.net/syntax"
)

// Limits of programs. They are kept with each of their runs.
const (
	MaxFile    = 1 << 20 // bytes of a file
	MaxProgram = 4 << 20 // bytes of all files together
	MaxFiles   = 256
)

// options is the dialect. A global is assigned once and functions don't call
// themselves, as usual in Starlark: what a name means can be told by reading.
var options = &syntax.FileOptions{Set: true, While: true, TopLevelControl: true}

// Program is a workflow with all files that it loads.
type Program struct {
	Main  string // slash-separated, as all names of files: relative to the directory of the main file
	Files map[string]string

	order []string // names of files, each after those that it loads
	trees map[string]*syntax.File
	loads map[string]map[string]string // by file, and module as it is written there: the file
}

// Problem is something that is wrong with a program.
type Problem struct {
	File    string `json:"file"`
	Line    int    `json:"line"`   // from 1; 0: the file as a whole
	Column  int    `json:"column"` // in characters, from 1
	Message string `json:"message"`
}

func (p Problem) String() string {
	if p.Line == 0 {
		return p.File + ": " + p.Message
	}
	return fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Message)
}

// Problems are an error; there is at least one.
type Problems []Problem

func (p Problems) Error() string {
	var lines []string
	for _, problem := range p {
		lines = append(lines, problem.String())
	}
	return strings.Join(lines, "\n")
}

// Load reads a program: the main file and, below the root of files, what it
// loads. The error is Problems, with as much of the program as could be read, or
// that of reading the main file.
func Load(files fs.FS, main string) (*Program, error) {
	l := &loader{files: files, program: &Program{
		Main: main, Files: map[string]string{}, trees: map[string]*syntax.File{}, loads: map[string]map[string]string{},
	}}
	text, err := l.read(main)
	var size *errSize
	if errors.As(err, &size) {
		return l.program, Problems{{File: main, Message: size.text}}
	}
	if err != nil {
		return nil, err
	}
	l.load(main, text)
	if len(l.problems) > 0 {
		return l.program, l.problems
	}
	return l.program, nil
}

type loader struct {
	files    fs.FS
	program  *Program
	size     int
	chain    []string // of files, each loaded by the one before
	problems Problems
}

// errSize says that a file, or a program, is too large.
type errSize struct{ text string }

func (e *errSize) Error() string { return e.text }

func (l *loader) read(name string) (string, error) {
	file, err := l.files.Open(name)
	if err != nil {
		return "", err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, MaxFile+1))
	switch {
	case err != nil:
		return "", err
	case len(text) > MaxFile:
		return "", &errSize{fmt.Sprintf("the file is larger than %d MiB: a program says what is done, and data belongs into files that it names", MaxFile>>20)}
	case l.size+len(text) > MaxProgram:
		return "", &errSize{fmt.Sprintf("with this file the program is larger than %d MiB in all", MaxProgram>>20)}
	case len(l.program.Files) == MaxFiles:
		return "", &errSize{fmt.Sprintf("with this file the program has more than %d files", MaxFiles)}
	}
	l.size += len(text)
	return string(text), nil
}

// load parses a file and those that it loads.
func (l *loader) load(name, text string) {
	p := l.program
	p.Files[name] = text
	l.chain = append(l.chain, name)
	defer func() { l.chain = l.chain[:len(l.chain)-1] }()
	if i := invalidUTF8(text); i >= 0 {
		l.problem(name, 1+strings.Count(text[:i], "\n"), 1, "there are bytes here that are not UTF-8 text")
		return
	}
	tree, err := options.Parse(name, text, 0)
	if err != nil {
		problem := syntaxProblem(name, err)
		line := []rune(p.Line(name, problem.Line))
		if hint := pythonHint(problem.Message, string(line[:min(max(problem.Column-1, 0), len(line))])); hint != "" {
			problem.Message = hint
		}
		l.problems = append(l.problems, problem)
		return
	}
	p.trees[name], p.loads[name] = tree, map[string]string{}
	syntax.Walk(tree, func(n syntax.Node) bool {
		if s, ok := n.(*syntax.LoadStmt); ok {
			l.loaded(name, s)
		}
		return true
	})
	p.order = append(p.order, name)
}

func (l *loader) loaded(name string, s *syntax.LoadStmt) {
	pos := s.Module.TokenPos
	module := s.ModuleName()
	target, err := moduleFile(name, module)
	if err != nil {
		l.problemAt(pos, "%s", err)
		return
	}
	p := l.program
	p.loads[name][module] = target
	for i, other := range l.chain {
		if other == target {
			l.problemAt(pos, "the files load each other in a circle: %s", strings.Join(append(l.chain[i:len(l.chain):len(l.chain)], target), " → "))
			return
		}
	}
	if _, ok := p.Files[target]; ok {
		return
	}
	text, err := l.read(target)
	var size *errSize
	switch {
	case errors.As(err, &size):
		l.problemAt(pos, "%s: %s", target, size)
	case errors.Is(err, fs.ErrNotExist):
		l.problemAt(pos, "there is no file %s; the name is relative to the directory of the file that loads it", target)
	case err != nil:
		l.problemAt(pos, "the file %s cannot be read: %s", target, cause(err))
	default:
		l.load(target, text)
	}
}

// moduleFile is the file that a load statement names.
func moduleFile(from, module string) (string, error) {
	if module == "" || strings.HasPrefix(module, "/") || strings.ContainsAny(module, "\\:") || strings.HasPrefix(module, "@") {
		return "", fmt.Errorf("load takes the name of a file beside this one or below, such as \"lib/text.star\", not %q", module)
	}
	target := path.Join(path.Dir(from), module)
	if !fs.ValidPath(target) || target == "." {
		return "", fmt.Errorf("%q is not below the directory of the workflow's main file, and only what is can be loaded", module)
	}
	return target, nil
}

// cause is what went wrong with a file, without the name that is told already.
func cause(err error) error {
	var onDisk *fs.PathError
	if errors.As(err, &onDisk) {
		return onDisk.Err
	}
	return err
}

func invalidUTF8(text string) int {
	if utf8.ValidString(text) {
		return -1
	}
	for i, r := range text {
		if r == utf8.RuneError && !bytes.HasPrefix([]byte(text[i:]), []byte(string(utf8.RuneError))) {
			return i
		}
	}
	return -1
}

func syntaxProblem(name string, err error) Problem {
	var at syntax.Error
	if errors.As(err, &at) {
		return Problem{name, int(at.Pos.Line), int(at.Pos.Col), at.Msg}
	}
	return Problem{File: name, Message: err.Error()}
}

func (l *loader) problem(file string, line, column int, message string) {
	l.problems = append(l.problems, Problem{file, line, column, message})
}

func (l *loader) problemAt(pos syntax.Position, format string, args ...any) {
	l.problem(pos.Filename(), int(pos.Line), int(pos.Col), fmt.Sprintf(format, args...))
}

// Parameter is one of the arguments that a run takes.
type Parameter struct {
	Name    string `json:"name"`
	Default string `json:"default,omitempty"` // as the program has it; empty: it has to be given
}

// main returns the function that a run calls, nil where there is none.
func (p *Program) main() *syntax.DefStmt {
	for _, s := range p.trees[p.Main].Stmts {
		if def, ok := s.(*syntax.DefStmt); ok && def.Name.Name == "main" {
			return def
		}
	}
	return nil
}

// Parameters are those of the function main.
func (p *Program) Parameters() []Parameter {
	parameters := []Parameter{}
	def := p.main()
	if def == nil {
		return parameters
	}
	for _, param := range def.Params {
		switch param := param.(type) {
		case *syntax.Ident:
			parameters = append(parameters, Parameter{Name: param.Name})
		case *syntax.BinaryExpr:
			parameters = append(parameters, Parameter{Name: param.X.(*syntax.Ident).Name, Default: p.source(param.Y)})
		}
	}
	return parameters
}

// lineEnds makes all that ends a line in Starlark one character.
var lineEnds = strings.NewReplacer("\r\n", "\n", "\r", "\n")

// source is the text of an expression.
func (p *Program) source(e syntax.Expr) string {
	start, end := e.Span()
	text := lineEnds.Replace(p.Files[start.Filename()])
	lines := strings.SplitAfter(text, "\n")
	text = text[offset(lines, start):offset(lines, end)]
	if strings.Contains(text, "\n") {
		return strings.Join(strings.Fields(text), " ")
	}
	return text
}

// Line is a line of a file, from 1; empty where there is none.
func (p *Program) Line(file string, n int) string {
	lines := strings.Split(lineEnds.Replace(p.Files[file]), "\n")
	if n < 1 || n > len(lines) {
		return ""
	}
	return lines[n-1]
}

// offset is where a position is in a text, whose columns count characters.
func offset(lines []string, pos syntax.Position) int {
	n := 0
	for _, line := range lines[:pos.Line-1] {
		n += len(line)
	}
	column := 1
	for i := range lines[pos.Line-1] {
		if column == int(pos.Col) {
			return n + i
		}
		column++
	}
	return n + len(lines[pos.Line-1])
}
