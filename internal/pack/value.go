package pack

import (
	"encoding/json"

	"github.com/berth-run/berth/internal/yamlstrict"
)

// value is a default or an example: written plainly, or as Brane tags it,
// {v: KIND, c: VALUE}.
func value(n *yamlstrict.Node) json.RawMessage {
	plain := n.JSON()
	var tagged any
	if json.Unmarshal(plain, &tagged) != nil || !isTagged(tagged) {
		return plain
	}
	return untag(plain, 0)
}

var tags = map[string]bool{"boolean": true, "integer": true, "real": true, "unicode": true, "array": true, "struct": true}

func isTagged(v any) bool {
	object, ok := v.(map[string]any)
	if !ok || len(object) != 2 {
		return false
	}
	tag, _ := object["v"].(string)
	_, has := object["c"]
	return has && tags[tag]
}

type tagged struct {
	Tag     string          `json:"v"`
	Content json.RawMessage `json:"c"`
}

// untag takes the tags away, all the way down.
func untag(text json.RawMessage, depth int) json.RawMessage {
	var any any
	var t tagged
	if depth > 20 || json.Unmarshal(text, &any) != nil || !isTagged(any) || json.Unmarshal(text, &t) != nil {
		return text
	}
	var inner struct {
		Entries    []json.RawMessage          `json:"entries"`
		Properties map[string]json.RawMessage `json:"properties"`
	}
	switch t.Tag {
	case "array":
		if json.Unmarshal(t.Content, &inner) != nil {
			return text
		}
		list := []json.RawMessage{}
		for _, entry := range inner.Entries {
			list = append(list, untag(entry, depth+1))
		}
		text, _ := json.Marshal(list)
		return text
	case "struct":
		if json.Unmarshal(t.Content, &inner) != nil {
			return text
		}
		object := map[string]json.RawMessage{}
		for name, property := range inner.Properties {
			object[name] = untag(property, depth+1)
		}
		text, _ := json.Marshal(object)
		return text
	}
	return t.Content
}
