package berth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// ValueError says which part of a value is not of its declared type.
type ValueError struct {
	Path    string // such as points[3].x
	Problem string // such as: want a real, have "abc"
	Null    bool   // there is no value at all
}

func (e *ValueError) Error() string { return show(e.Path) + ": " + e.Problem }

// CheckValue checks a JSON value against a type and returns its canonical form:
// no white space, integers as such, reals as the shortest number that reads
// back the same, the properties of a class in the order of their declaration,
// with defaults filled in and optional ones left out when they are null. The
// canonical form of a canonical form is itself. Nothing is coerced, except that
// an integer is a real. Path is what the error calls the value; the error is a
// [*ValueError].
func CheckValue(path string, t Type, classes map[string]Class, value json.RawMessage) (json.RawMessage, error) {
	if !json.Valid(value) {
		return nil, &ValueError{Path: path, Problem: "want " + t.article() + ", but this is not valid JSON"}
	}
	var out bytes.Buffer
	c := checker{classes: classes, out: &out}
	if err := c.check(path, t, value); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

type checker struct {
	classes map[string]Class
	out     *bytes.Buffer
}

func (t Type) article() string {
	switch {
	case t.Dimensions > 0:
		return "an array (" + t.String() + ")"
	case t.Base == TypeInteger:
		return "an integer"
	case t.Base == TypeBoolean:
		return "true or false"
	case t.Base == TypeFile, t.Base == TypeDirectory:
		return "the path of a " + t.Base
	case t.Builtin():
		return "a " + t.Base
	}
	return "an object (" + t.Base + ")"
}

func wrongType(path string, t Type, value json.RawMessage) error {
	return &ValueError{Path: path, Problem: "want " + t.article() + ", have " + shorten(compact(value)), Null: isNull(value)}
}

func compact(value json.RawMessage) string {
	var out bytes.Buffer
	if json.Compact(&out, value) != nil {
		return string(value)
	}
	return strings.ToValidUTF8(out.String(), "\uFFFD")
}

func isNull(value json.RawMessage) bool { return string(bytes.TrimSpace(value)) == "null" }

func (c *checker) check(path string, t Type, value json.RawMessage) error {
	value = bytes.TrimSpace(value)
	switch {
	case t.Dimensions > 0:
		return c.array(path, t, value)
	case t.Base == TypeBoolean:
		if text := string(value); text != "true" && text != "false" {
			return wrongType(path, t, value)
		}
		c.out.Write(value)
	case t.Base == TypeInteger:
		number, err := strconv.ParseInt(string(value), 10, 64)
		if err != nil {
			if errors.Is(err, strconv.ErrRange) {
				return &ValueError{Path: path, Problem: "want an integer of 64 bits, have " + shorten(string(value))}
			}
			return wrongType(path, t, value)
		}
		c.out.WriteString(strconv.FormatInt(number, 10))
	case t.Base == TypeReal:
		return c.real(path, t, value)
	case t.Base == TypeString:
		return c.text(path, t, value)
	case t.Base == TypeFile, t.Base == TypeDirectory:
		return c.file(path, t, value)
	default:
		class, ok := c.classes[t.Base]
		if !ok {
			return &ValueError{Path: path, Problem: "its type " + t.Base + " is not declared"}
		}
		return c.object(path, t, class, value)
	}
	return nil
}

func (c *checker) real(path string, t Type, value json.RawMessage) error {
	if value[0] != '-' && (value[0] < '0' || value[0] > '9') {
		return wrongType(path, t, value)
	}
	number, err := strconv.ParseFloat(string(value), 64)
	if err != nil || math.IsInf(number, 0) {
		return &ValueError{Path: path, Problem: "want a real of 64 bits, have " + shorten(string(value))}
	}
	text, err := json.Marshal(number)
	if err != nil {
		return wrongType(path, t, value)
	}
	c.out.Write(text)
	return nil
}

func (c *checker) text(path string, t Type, value json.RawMessage) error {
	var text string
	if value[0] != '"' || json.Unmarshal(value, &text) != nil {
		return wrongType(path, t, value)
	}
	// An environment variable can't hold it, and neither can PostgreSQL's JSON.
	if strings.ContainsRune(text, 0) {
		return &ValueError{Path: path, Problem: "has a NUL character; put binary data into files"}
	}
	writeString(c.out, text)
	return nil
}

// file takes a path, or {"url": PATH}, which is how Brane keeps it.
func (c *checker) file(path string, t Type, value json.RawMessage) error {
	if value[0] == '{' {
		members, err := readObject(path, value)
		if err != nil {
			return err
		}
		if len(members) != 1 || members[0].key != "url" {
			return wrongType(path, t, value)
		}
		return c.file(path+".url", Type{Base: TypeString}, members[0].value)
	}
	if string(value) == `""` {
		return &ValueError{Path: path, Problem: "want " + t.article() + ", but it is empty"}
	}
	return c.text(path, t, value)
}

func (c *checker) array(path string, t Type, value json.RawMessage) error {
	if value[0] != '[' {
		return wrongType(path, t, value)
	}
	decoder := json.NewDecoder(bytes.NewReader(value))
	if _, err := decoder.Token(); err != nil {
		return wrongType(path, t, value)
	}
	c.out.WriteByte('[')
	for i := 0; decoder.More(); i++ {
		var element json.RawMessage
		if err := decoder.Decode(&element); err != nil {
			return wrongType(path, t, value)
		}
		if i > 0 {
			c.out.WriteByte(',')
		}
		if err := c.check(path+"["+strconv.Itoa(i)+"]", t.Element(), element); err != nil {
			return err
		}
	}
	c.out.WriteByte(']')
	return nil
}

func (c *checker) object(path string, t Type, class Class, value json.RawMessage) error {
	if value[0] != '{' {
		return wrongType(path, t, value)
	}
	members, err := readObject(path, value)
	if err != nil {
		return err
	}
	given := map[string]json.RawMessage{}
	var names []string
	for _, p := range class.Properties {
		names = append(names, p.Name)
		given[p.Name] = p.Default
	}
	for _, m := range members {
		if _, known := given[m.key]; !known {
			return &ValueError{Path: path, Problem: unknown("property", m.key, "of "+t.Base, names)}
		}
		given[m.key] = m.value
	}
	c.out.WriteByte('{')
	first := true
	for _, p := range class.Properties {
		value := given[p.Name]
		if p.Optional && value != nil && isNull(value) {
			value = p.Default
		}
		if p.Optional && value == nil {
			continue
		}
		inner := path + "." + p.Name
		if value == nil {
			return &ValueError{Path: path, Problem: fmt.Sprintf("the property %s (%s) of %s is missing", show(p.Name), p.Type, t.Base)}
		}
		propertyType, err := ParseType(p.Type)
		if err != nil {
			return &ValueError{Path: inner, Problem: err.Error()}
		}
		if !first {
			c.out.WriteByte(',')
		}
		first = false
		writeString(c.out, p.Name)
		c.out.WriteByte(':')
		if err := c.check(inner, propertyType, value); err != nil {
			return err
		}
	}
	c.out.WriteByte('}')
	return nil
}

type member struct {
	key   string
	value json.RawMessage
}

// readObject reads an object's members in order; one that is there twice is an
// error, where encoding/json would take the last in silence.
func readObject(path string, value json.RawMessage) ([]member, error) {
	decoder := json.NewDecoder(bytes.NewReader(value))
	if _, err := decoder.Token(); err != nil {
		return nil, &ValueError{Path: path, Problem: "this is not valid JSON"}
	}
	var members []member
	seen := map[string]bool{}
	for decoder.More() {
		token, err := decoder.Token()
		key, ok := token.(string)
		if err != nil || !ok {
			return nil, &ValueError{Path: path, Problem: "this is not valid JSON"}
		}
		m := member{key: key}
		if err := decoder.Decode(&m.value); err != nil && !errors.Is(err, io.EOF) {
			return nil, &ValueError{Path: path, Problem: "this is not valid JSON"}
		}
		if seen[key] {
			return nil, &ValueError{Path: path, Problem: "has " + show(key) + " twice"}
		}
		seen[key] = true
		members = append(members, m)
	}
	return members, nil
}

// writeString writes JSON without the escapes that are for HTML alone.
func writeString(out *bytes.Buffer, text string) {
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(text)    // a string in memory: it can't fail
	out.Truncate(out.Len() - 1) // the line end that Encode adds
}
