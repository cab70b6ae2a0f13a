package berth

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Limits of arguments. They reach the program as environment variables, of
// which Linux takes 128 KiB each, by way of an object in etcd.
const (
	MaxArgument  = 120 << 10 // bytes of a value, encoded
	MaxArguments = 512 << 10 // of all values of a call together
)

// Arguments checks the arguments of a call and returns them in canonical form,
// with defaults filled in and optional ones that weren't given left out.
// Secrets are the names of those that are references. The error is CodeInvalid
// and names the argument; it never repeats what was given for a secret.
func (p *Package) Arguments(function string, given map[string]json.RawMessage) (checked map[string]json.RawMessage, secrets []string, err error) {
	fn, err := p.Lookup(function)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range sortedKeys(given) {
		if fn.Input(name) == nil {
			return nil, nil, Errorf(CodeInvalid, "%s", unknown("argument", name, "of "+fn.Name, fn.inputNames()))
		}
	}
	checked = map[string]json.RawMessage{}
	size := 0
	for i := range fn.Inputs {
		in := &fn.Inputs[i]
		value, ok := given[in.Name]
		if len(value) == 0 {
			ok = false
		}
		if ok && in.Optional && isNull(value) {
			ok = false
		}
		if !ok {
			value = in.Default
		}
		if value == nil {
			if in.Optional {
				continue
			}
			return nil, nil, Errorf(CodeInvalid, "the argument %s of %s is missing; its inputs are %s", show(in.Name), fn.Name, fn.signature())
		}
		if value, err = p.argument(in, value); err != nil {
			return nil, nil, err
		}
		if size += len(value); size > MaxArguments {
			return nil, nil, Errorf(CodeInvalid, "argument %s: all arguments together take more than %d KiB: put large data into files", show(in.Name), MaxArguments>>10)
		}
		checked[in.Name] = value
		if in.Secret {
			secrets = append(secrets, in.Name)
		}
	}
	return checked, secrets, nil
}

func (p *Package) argument(in *Parameter, value json.RawMessage) (json.RawMessage, error) {
	if in.Secret {
		reference, err := secretReference(in.Name, value)
		if err != nil {
			return nil, err
		}
		return json.RawMessage(strconv.Quote(reference)), nil
	}
	t, err := ParseType(in.Type)
	if err != nil {
		return nil, Errorf(CodeInvalid, "argument %s: %w", show(in.Name), err)
	}
	checked, err := CheckValue(in.Name, t, p.Types, value)
	if err != nil {
		return nil, Errorf(CodeInvalid, "argument %w", err)
	}
	if len(checked) > MaxArgument {
		return nil, Errorf(CodeInvalid, "argument %s takes %d bytes; at most %d KiB are possible: put large data into files", show(in.Name), len(checked), MaxArgument>>10)
	}
	return checked, nil
}

// CheckArgument checks the value of one input. The error is CodeInvalid and names
// the argument.
func (p *Package) CheckArgument(in *Parameter, value json.RawMessage) error {
	_, err := p.argument(in, value)
	return err
}

var secretPatterns = []*regexp.Regexp{
	regexp.MustCompile(`^(secret:[-._@/A-Za-z0-9]{1,253})$`),
	regexp.MustCompile(`^\$\{(secret:[-._@/A-Za-z0-9]{1,253})\}$`),
	regexp.MustCompile(`^(kube:[a-z0-9](?:[-.a-z0-9]{0,251}[a-z0-9])?/[-._A-Za-z0-9]{1,253})$`),
}

// SecretReference reads a reference to a secret, "secret:KEY", "${secret:KEY}"
// or "kube:NAME/KEY", and returns it as "secret:KEY" or "kube:NAME/KEY".
func SecretReference(text string) (reference string, ok bool) {
	for _, pattern := range secretPatterns {
		if m := pattern.FindStringSubmatch(text); m != nil {
			return m[1], true
		}
	}
	return "", false
}

func secretReference(name string, value json.RawMessage) (string, error) {
	var text string
	if err := json.Unmarshal(value, &text); err == nil {
		if reference, ok := SecretReference(text); ok {
			return reference, nil
		}
	}
	return "", Errorf(CodeInvalid, "argument %s is secret and takes a reference, not the value itself: write %s=secret:KEY for a key of secrets.yml, or %s=kube:NAME/KEY for a Secret of the namespace",
		show(name), name, name)
}

// ParseArgument reads an argument from the command line: NAME=VALUE, where
// VALUE is read by the declared type, or NAME:=JSON. What it returns is for
// [Package.Arguments], which checks it. The error is CodeInvalid.
func (p *Package) ParseArgument(function, word string) (name string, value json.RawMessage, err error) {
	fn, err := p.Lookup(function)
	if err != nil {
		return "", nil, err
	}
	name, text, found := strings.Cut(word, "=")
	name, isJSON := strings.CutSuffix(name, ":")
	if !found {
		if fn.Input(word) != nil {
			return "", nil, Errorf(CodeInvalid, "argument %s has no value; write %s=VALUE", show(word), word)
		}
		return "", nil, Errorf(CodeInvalid, "want NAME=VALUE or NAME:=JSON, but there is no '='; the inputs of %s are %s", fn.Name, fn.signature())
	}
	in := fn.Input(name)
	if in == nil {
		return "", nil, Errorf(CodeInvalid, "%s", unknown("argument", name, "of "+fn.Name, fn.inputNames()))
	}
	if isJSON {
		if !json.Valid([]byte(text)) {
			return "", nil, Errorf(CodeInvalid, "argument %s: what is after := is not valid JSON; strings need quotes there, which the shell takes away: write '%s:=\"text\"', or %s=text", show(name), name, name)
		}
		return name, json.RawMessage(text), nil
	}
	if in.Secret {
		return name, quoteJSON(text), nil
	}
	t, err := ParseType(in.Type)
	if err != nil {
		return "", nil, Errorf(CodeInvalid, "argument %s: %w", show(name), err)
	}
	value, err = parseByType(t, name, text)
	if err != nil {
		return "", nil, Errorf(CodeInvalid, "argument %s: %w", show(name), err)
	}
	return name, value, nil
}

func parseByType(t Type, name, text string) (json.RawMessage, error) {
	switch {
	case t.Dimensions > 0 || !t.Builtin():
		trimmed := strings.TrimSpace(text)
		if (strings.HasPrefix(trimmed, "[") || strings.HasPrefix(trimmed, "{")) && json.Valid([]byte(trimmed)) {
			return json.RawMessage(trimmed), nil
		}
		example := `'` + name + `:={"PROPERTY": VALUE}'`
		if t.Dimensions > 0 {
			example = `'` + name + `:=[VALUE, VALUE]'`
		}
		return nil, fmt.Errorf("want %s, have %s; write it as JSON: %s", t.article(), show(text), example)
	case t.Base == TypeInteger:
		number, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("want an integer, have %s", show(text))
		}
		return json.RawMessage(strconv.FormatInt(number, 10)), nil
	case t.Base == TypeReal:
		number, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
		if err == nil {
			if value, err := json.Marshal(number); err == nil { // neither infinite nor NaN
				return value, nil
			}
		}
		return nil, fmt.Errorf("want a real, have %s", show(text))
	case t.Base == TypeBoolean:
		if text != "true" && text != "false" {
			return nil, fmt.Errorf("want true or false, have %s", show(text))
		}
		return json.RawMessage(text), nil
	}
	return quoteJSON(text), nil
}
