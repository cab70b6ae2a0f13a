package let

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/berth-run/berth/internal/yamlstrict"
)

// Decode reads what a program gave as its result, YAML or JSON, and returns it
// as JSON: keys are strings, numbers keep all their digits. Nothing, or nothing
// but blanks, is no result and no error. The error is one sentence for a person.
func Decode(captured []byte) (json.RawMessage, error) {
	text := bytes.TrimSpace(bytes.TrimPrefix(captured, []byte("\ufeff")))
	if len(text) == 0 {
		return nil, nil
	}
	if err := readable(text); err != nil {
		return nil, err
	}
	if json.Valid(text) {
		var out bytes.Buffer
		if err := json.Compact(&out, text); err != nil {
			return nil, err
		}
		return out.Bytes(), nil
	}
	value, err := decodeYAML(captured)
	if err != nil {
		return nil, fmt.Errorf("the output is neither YAML nor JSON (%w); it begins with %s", err, excerpt(text))
	}
	return value, nil
}

// decodeYAML also guards against the parser: a panic over odd output must not
// end the agent.
func decodeYAML(text []byte) (value json.RawMessage, err error) {
	defer func() {
		if recover() != nil {
			value, err = nil, errors.New("it can't be read")
		}
	}()
	doc, err := yamlstrict.ParseOutput("output", text)
	if err != nil {
		return nil, err
	}
	value = doc.Root().JSON()
	if err := doc.Err(); err != nil {
		return nil, err
	}
	if !json.Valid(value) {
		return nil, errors.New("it can't be read")
	}
	return value, nil
}

func readable(text []byte) error {
	if !utf8.Valid(text) {
		return fmt.Errorf("the output is not UTF-8 text; it begins with %s", excerpt(text))
	}
	for _, r := range string(text) {
		if unicode.IsControl(r) && !strings.ContainsRune("\t\n\r\u0085", r) {
			return fmt.Errorf("the output has the control character %U, as binary data do; it begins with %s", r, excerpt(text))
		}
	}
	return nil
}

// excerpt is a printable beginning.
func excerpt(text []byte) string {
	const most = 60
	if len(text) > most {
		return strconv.Quote(string(text[:most])) + "..."
	}
	return strconv.Quote(string(text))
}
