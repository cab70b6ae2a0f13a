package berth

import (
	"encoding/json"
	"time"
)

// Package is code that offers typed functions, built into one image. Its JSON
// form travels with the image: as an annotation of its manifest, and as a file
// for the agent.
type Package struct {
	Name        string           `json:"name"`
	Version     string           `json:"version"` // semantic version
	Kind        string           `json:"kind"`    // ecu, as Brane calls it
	Description string           `json:"description,omitempty"`
	Entrypoint  Entrypoint       `json:"entrypoint"`
	WorkDir     string           `json:"workDir"`              // absolute: where the package's files are
	Initialize  []string         `json:"initialize,omitempty"` // command lines, run before each call
	Functions   []Function       `json:"functions"`            // by name
	Types       map[string]Class `json:"types,omitempty"`

	// What a registry tells of it; not part of the stored form.
	Digest    string    `json:"digest,omitempty"` // sha256:... of the image
	Platforms []string  `json:"platforms,omitempty"`
	Size      int64     `json:"size,omitempty"` // bytes, compressed, all layers
	CreatedAt time.Time `json:"createdAt,omitzero"`
}

// Entrypoint is the program of a package.
type Entrypoint struct {
	Kind string `json:"kind"` // task
	Exec string `json:"exec"` // relative to WorkDir, absolute, or looked up in PATH
}

// Capture says where a program's result is in its output.
type Capture string

const (
	CaptureComplete Capture = "complete" // all of stdout
	CaptureMarked   Capture = "marked"   // between the lines "--> START CAPTURE" and "--> END CAPTURE"
	CapturePrefixed Capture = "prefixed" // lines that begin with "~~>"
)

// Function is one thing that a package can do.
type Function struct {
	Name        string      `json:"name"`
	Description string      `json:"description,omitempty"`
	Args        []string    `json:"args,omitempty"` // of the program
	Capture     Capture     `json:"capture"`
	Inputs      []Parameter `json:"inputs"`
	Outputs     []Parameter `json:"outputs"`
}

// Parameter is a declared input or output of a function, or a property of a class.
type Parameter struct {
	Name        string          `json:"name"`
	Type        string          `json:"type"` // boolean, integer, real, string, File, Directory, a class; with [] appended an array
	Description string          `json:"description,omitempty"`
	Default     json.RawMessage `json:"default,omitempty"`
	Example     json.RawMessage `json:"example,omitempty"` // for berth package test
	Optional    bool            `json:"optional,omitempty"`
	Secret      bool            `json:"secret,omitempty"`
}

// Class is a type with named properties.
type Class struct {
	Properties []Parameter `json:"properties"`
}

// Function returns a function by name, or nil.
func (p *Package) Function(name string) *Function {
	for i := range p.Functions {
		if p.Functions[i].Name == name {
			return &p.Functions[i]
		}
	}
	return nil
}

// Call is a function of a package with its arguments.
type Call struct {
	Package  string `json:"package"`
	Version  string `json:"version"` // as asked for, resolved at submission; empty: the newest
	Digest   string `json:"digest"`  // of the image, fixed at submission
	Function string `json:"function"`

	// Arguments are JSON values by name, checked and with defaults filled in.
	// Those of secret inputs are references, such as "secret:KEY".
	Arguments map[string]json.RawMessage `json:"arguments"`
	Secrets   []string                   `json:"secrets,omitempty"` // which of the arguments are references
}
