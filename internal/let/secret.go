package let

import (
	"encoding/json"
	"errors"
	"os"
	"strings"

	"github.com/berth-run/berth"
)

// secret takes the value of a secret input from where the driver put it, and
// removes it from there.
func (c *call) secret(from string) (string, error) {
	if name, ok := strings.CutPrefix(from, "env:"); ok {
		for i, pair := range c.environ {
			if value, found := strings.CutPrefix(pair, name+"="); found {
				c.environ = append(c.environ[:i:i], c.environ[i+1:]...)
				return value, nil
			}
		}
		return "", errors.New("it was not given")
	}
	path, ok := strings.CutPrefix(from, "file:")
	if !ok {
		return "", errors.New("it is neither a variable nor a file")
	}
	data, err := os.ReadFile(path)
	_ = os.Remove(path)
	return string(data), err
}

// secretValue reads a secret's text as the declared type of its input.
func (c *call) secretValue(name, text string) (json.RawMessage, error) {
	for i := range c.function.Inputs {
		in := &c.function.Inputs[i]
		if in.Name != name {
			continue
		}
		t, err := berth.ParseType(in.Type)
		if err != nil {
			return nil, err
		}
		value := json.RawMessage(text)
		if in.Type == "string" || !json.Valid(value) {
			if value, err = json.Marshal(text); err != nil {
				return nil, err
			}
		}
		return berth.CheckValue(name, t, c.pkg.Types, value)
	}
	return json.Marshal(text)
}
