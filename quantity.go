package berth

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
)

// Quantity is an amount of a resource as Kubernetes writes it: "500m" of a CPU,
// "2Gi" of memory. The empty quantity means that none was given.
type Quantity string

var (
	quantityPattern  = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?|\.[0-9]+)([A-Za-z]*)$`)
	quantitySuffixes = map[string]float64{
		"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15,
		"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "Pi": 1 << 50,
	}
)

func (q Quantity) parse() (number float64, suffix string, err error) {
	m := quantityPattern.FindStringSubmatch(string(q))
	if m == nil {
		return 0, "", fmt.Errorf("%q is not a quantity", string(q))
	}
	number, err = strconv.ParseFloat(m[1], 64)
	if err != nil {
		return 0, "", fmt.Errorf("%q is not a quantity", string(q))
	}
	return number, m[2], nil
}

// MilliCPU returns the quantity in thousandths of a CPU, rounded up as
// Kubernetes does.
func (q Quantity) MilliCPU() (int64, error) {
	const want = "write CPUs such as 2, 0.5 or 500m"
	number, suffix, err := q.parse()
	if err != nil {
		return 0, fmt.Errorf("%w; %s", err, want)
	}
	switch suffix {
	case "":
		number *= 1000
	case "m":
	default:
		return 0, fmt.Errorf("%q: unknown unit %q; %s", string(q), suffix, want)
	}
	if number <= 0 || number > math.MaxInt32*1000.0 {
		return 0, fmt.Errorf("%q is out of range; %s", string(q), want)
	}
	return int64(math.Ceil(number)), nil
}

// Bytes returns the quantity in bytes, rounded up.
func (q Quantity) Bytes() (int64, error) {
	const want = "write bytes with a unit such as 512Mi or 2Gi"
	number, suffix, err := q.parse()
	if err != nil {
		return 0, fmt.Errorf("%w; %s", err, want)
	}
	factor, ok := quantitySuffixes[suffix]
	if !ok {
		return 0, fmt.Errorf("%q: unknown unit %q; %s", string(q), suffix, want)
	}
	number *= factor
	if number < 1 || number >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is out of range; %s", string(q), want)
	}
	return int64(math.Ceil(number)), nil
}
