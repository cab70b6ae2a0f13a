package berth

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

var (
	// A package's name is that of a repository in a registry.
	packageName = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$`)
	// https://semver.org without build metadata: tags of images can't hold a '+'.
	packageVersion = regexp.MustCompile(`^(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)(?:-(?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)(?:\.(?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*))*)?$`)
)

// ValidatePackageName reports what is wrong with the name of a package, or nil.
func ValidatePackageName(name string) error {
	if len(name) > 63 || !packageName.MatchString(name) {
		return fmt.Errorf("package name %s: use at most 63 lower-case letters, digits, '_', '-' and '.', beginning and ending with a letter or digit", show(name))
	}
	return nil
}

// ValidatePackageVersion reports what is wrong with the version of a package, or nil.
func ValidatePackageVersion(version string) error {
	if strings.Contains(version, "+") {
		return fmt.Errorf("version %s: tags of images can't hold a '+'; use - instead, as in 1.0.0-rc.1", show(version))
	}
	if len(version) > 100 || !packageVersion.MatchString(version) {
		return fmt.Errorf("version %s: write a semantic version, three numbers such as 1.0.0", show(version))
	}
	return nil
}

// ValidateFunctionName reports what is wrong with the name of a function, or nil.
func ValidateFunctionName(name string) error {
	if !identifier.MatchString(name) {
		return fmt.Errorf("function %s: use at most 63 letters, digits and '_', not beginning with a digit", show(name))
	}
	return nil
}

// Validate reports the first thing that is wrong with the package, or nil. The
// error is CodeInvalid.
func (p *Package) Validate() error {
	if err := p.validate(); err != nil {
		return Errorf(CodeInvalid, "%w", err)
	}
	return nil
}

func (p *Package) validate() error {
	if err := ValidatePackageName(p.Name); err != nil {
		return err
	}
	if err := ValidatePackageVersion(p.Version); err != nil {
		return err
	}
	if p.Entrypoint.Exec == "" {
		return fmt.Errorf("package %s: the entrypoint names no program", p.Name)
	}
	if !strings.HasPrefix(p.WorkDir, "/") {
		return fmt.Errorf("package %s: its folder %s is not an absolute path", p.Name, show(p.WorkDir))
	}
	if err := CheckClasses(p.Types); err != nil {
		return err
	}
	seen := map[string]bool{}
	for i := range p.Functions {
		fn := &p.Functions[i]
		if err := ValidateFunctionName(fn.Name); err != nil {
			return err
		}
		if seen[fn.Name] {
			return fmt.Errorf("function %s is there twice", show(fn.Name))
		}
		seen[fn.Name] = true
		if err := fn.Check(p.Types); err != nil {
			return fmt.Errorf("function %s: %w", show(fn.Name), err)
		}
	}
	if len(p.Functions) == 0 {
		return fmt.Errorf("package %s offers no functions", p.Name)
	}
	return nil
}

// Check reports the first thing that is wrong with a function's declaration.
func (f *Function) Check(classes map[string]Class) error {
	switch f.Capture {
	case CaptureComplete, CaptureMarked, CapturePrefixed:
	default:
		return fmt.Errorf("capture %s: use complete, marked or prefixed", show(string(f.Capture)))
	}
	variables := map[string]string{}
	for _, in := range f.Inputs {
		if err := CheckInput(in, classes); err != nil {
			return fmt.Errorf("input %s: %w", show(in.Name), err)
		}
		variable := strings.ToUpper(in.Name)
		if other, taken := variables[variable]; taken {
			return fmt.Errorf("the inputs %s and %s are the same variable %s; rename one", show(other), show(in.Name), variable)
		}
		variables[variable] = in.Name
	}
	var names []string
	for _, out := range f.Outputs {
		if err := CheckOutput(out, classes); err != nil {
			return fmt.Errorf("output %s: %w", show(out.Name), err)
		}
		if slices.Contains(names, out.Name) {
			return fmt.Errorf("output %s is there twice", show(out.Name))
		}
		names = append(names, out.Name)
	}
	return nil
}

// takenVariables are those without which the program wouldn't start, or would
// start as another. An input of such a name would replace it.
var takenVariables = []string{"PATH", "LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT"}

// CheckInput reports what is wrong with an input: its name, its type, its
// default or its example.
func CheckInput(in Parameter, classes map[string]Class) error {
	variable := strings.ToUpper(in.Name)
	if slices.Contains(takenVariables, variable) || strings.HasPrefix(variable, "BERTH_") {
		return fmt.Errorf("inputs become environment variables, and this would replace %s; choose another name, such as %s_", variable, in.Name)
	}
	if !in.Secret {
		return checkParameter(in, classes)
	}
	if in.Type != TypeString {
		return fmt.Errorf("a secret input has to be of type string, not %s", in.Type)
	}
	for _, reference := range []json.RawMessage{in.Default, in.Example} {
		if reference == nil {
			continue
		}
		if _, err := secretReference(in.Name, reference); err != nil {
			return fmt.Errorf("a default or example of a secret input is a reference such as secret:KEY, never the value itself")
		}
	}
	in.Default, in.Example = nil, nil
	return checkParameter(in, classes)
}

// CheckOutput reports what is wrong with an output.
func CheckOutput(out Parameter, classes map[string]Class) error {
	if out.Secret {
		return fmt.Errorf("secret is for inputs; what a function gives is kept as it is")
	}
	return checkParameter(out, classes)
}

func checkParameter(p Parameter, classes map[string]Class) error {
	if !identifier.MatchString(p.Name) {
		return fmt.Errorf("a name is at most 63 letters, digits and '_', not beginning with a digit")
	}
	t, err := ParseType(p.Type)
	if err != nil {
		return err
	}
	if err := t.Check(classes); err != nil {
		return err
	}
	if p.Default == nil && p.Example == nil {
		return nil
	}
	// A value of a class that contains itself would be checked for ever.
	if err := checkCycles(classes); err != nil {
		return err
	}
	if p.Default != nil {
		if _, err := CheckValue(p.Name, t, classes, p.Default); err != nil {
			return fmt.Errorf("default %w", err)
		}
	}
	if p.Example != nil {
		if _, err := CheckValue(p.Name, t, classes, p.Example); err != nil {
			return fmt.Errorf("example %w", err)
		}
	}
	return nil
}
