package workflow

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"

	"go.starlark.net/starlark"
)

// deepest bounds how deep values are nested; one that contains itself is deeper.
const deepest = 100

// encode writes a value as canonical JSON: the keys of a dict in the order of
// their bytes, no white space. futures says what stands for one; nil: none may
// be in it.
func encode(v starlark.Value, futures func(*Future) (json.RawMessage, error)) (json.RawMessage, error) {
	e := encoder{futures: futures}
	if err := e.value(v, 0); err != nil {
		return nil, err
	}
	return e.out.Bytes(), nil
}

type encoder struct {
	out     bytes.Buffer
	futures func(*Future) (json.RawMessage, error)
}

func (e *encoder) value(v starlark.Value, depth int) error {
	if depth > deepest {
		return fmt.Errorf("the value is nested more than %d deep, or contains itself", deepest)
	}
	switch v := v.(type) {
	case starlark.NoneType:
		e.out.WriteString("null")
	case starlark.Bool:
		e.out.WriteString(strconv.FormatBool(bool(v)))
	case starlark.Int:
		e.out.WriteString(v.String())
	case starlark.Float:
		if math.IsInf(float64(v), 0) || math.IsNaN(float64(v)) {
			return fmt.Errorf("%s is no number that a task can be given", v)
		}
		text, err := json.Marshal(float64(v))
		if err != nil {
			return err
		}
		e.out.Write(text)
	case starlark.String:
		e.text(string(v))
	case *Future:
		if e.futures == nil {
			return fmt.Errorf("there is a future in the value, which only .submit and .map take: use its .result()")
		}
		text, err := e.futures(v)
		if err != nil {
			return err
		}
		e.out.Write(text)
	case *starlark.Dict:
		return e.dict(v, depth)
	case partial:
		return e.dict(v.Dict, depth)
	case starlark.Indexable: // list, tuple, range
		e.out.WriteByte('[')
		for i := range v.Len() {
			if i > 0 {
				e.out.WriteByte(',')
			}
			if err := e.value(v.Index(i), depth+1); err != nil {
				return err
			}
		}
		e.out.WriteByte(']')
	default:
		return fmt.Errorf("a %s is no value that a task can be given", v.Type())
	}
	return nil
}

func (e *encoder) text(s string) {
	encoder := json.NewEncoder(&e.out)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(s) // a string in memory: it can't fail
	e.out.Truncate(e.out.Len() - 1)
}

func (e *encoder) dict(d *starlark.Dict, depth int) error {
	items := make(map[string]starlark.Value, d.Len())
	for _, item := range d.Items() {
		key, ok := item[0].(starlark.String)
		if !ok {
			return fmt.Errorf("the keys of an object are text, not %s", item[0].Type())
		}
		items[string(key)] = item[1]
	}
	e.out.WriteByte('{')
	for i, key := range sortedKeys(items) {
		if i > 0 {
			e.out.WriteByte(',')
		}
		e.text(key)
		e.out.WriteByte(':')
		if err := e.value(items[key], depth+1); err != nil {
			return err
		}
	}
	e.out.WriteByte('}')
	return nil
}

// decode makes a value of JSON. Each call makes a new one, which a program may
// change.
func decode(text json.RawMessage) (starlark.Value, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var v any
	if err := decoder.Decode(&v); err != nil {
		return nil, err
	}
	return fromGo(v)
}

func fromGo(v any) (starlark.Value, error) {
	switch v := v.(type) {
	case nil:
		return starlark.None, nil
	case bool:
		return starlark.Bool(v), nil
	case string:
		return starlark.String(v), nil
	case json.Number:
		if n, err := strconv.ParseInt(string(v), 10, 64); err == nil {
			return starlark.MakeInt64(n), nil
		}
		f, err := strconv.ParseFloat(string(v), 64)
		return starlark.Float(f), err
	case []any:
		list := make([]starlark.Value, len(v))
		for i := range v {
			var err error
			if list[i], err = fromGo(v[i]); err != nil {
				return nil, err
			}
		}
		return starlark.NewList(list), nil
	case map[string]any:
		dict := starlark.NewDict(len(v))
		for _, key := range sortedKeys(v) {
			value, err := fromGo(v[key])
			if err != nil {
				return nil, err
			}
			if err := dict.SetKey(keyOf(key), value); err != nil {
				return nil, err
			}
		}
		return dict, nil
	}
	return nil, fmt.Errorf("a %T is no value", v)
}

// plainKeys are those of the values of plain tasks, of which a run may have
// many thousands: they have them in common.
var plainKeys = func() map[string]starlark.Value {
	keys := map[string]starlark.Value{}
	for _, key := range []string{"output", "truncated", "incomplete", "exit_code", "started_at", "finished_at", "task"} {
		keys[key] = starlark.String(key)
	}
	return keys
}()

func keyOf(text string) starlark.Value {
	if key := plainKeys[text]; key != nil {
		return key
	}
	return starlark.String(text)
}

// partial is the value of a plain task of whose output something is missing: a
// program that doesn't ask for the output goes on, and none takes it for whole.
type partial struct{ *starlark.Dict }

// reliable returns the value of a plain task so that its output can be relied on.
func reliable(v starlark.Value) (starlark.Value, error) {
	dict, is := v.(*starlark.Dict)
	if !is {
		return v, nil
	}
	if lacks, found, err := dict.Get(starlark.String("incomplete")); err != nil || !found || lacks != starlark.True {
		return v, err
	}
	return partial{dict}, nil
}

func (p partial) Get(key starlark.Value) (starlark.Value, bool, error) {
	if key == starlark.String("output") {
		task, _, err := p.Dict.Get(starlark.String("task"))
		if err != nil {
			return nil, false, err
		}
		id, _ := starlark.AsString(task)
		return nil, false, fmt.Errorf("the output of task %s is not whole: the cluster did not give all of its log; berth task logs %s shows what there is and what is missing, .get(\"output\") takes it as it is", id, id)
	}
	return p.Dict.Get(key)
}
