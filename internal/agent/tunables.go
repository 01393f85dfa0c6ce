package agent

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/belfry-ha/belfry"
	"github.com/belfry-ha/belfry/internal/api"
	"github.com/belfry-ha/belfry/internal/cluster"
	"github.com/belfry-ha/belfry/internal/config"
)

// tunablesSection is the one section of the cluster's configuration that the
// member table holds.
const tunablesSection = "tunables"

// sections are those of the whole configuration (repository.md).
var sections = []string{"cluster", "networks", "links", tunablesSection, "resources", "witness", "linked", "handlers", "roles", "repository"}

// A tunable is one setting of the section: its text and its place.
type tunable struct {
	name  string
	want  string // its range, for people
	value func(*cluster.Tunables) quantity
}

// A quantity is the value of a tunable in one form of text.
type quantity interface {
	parse(text string) error // says what form is right
	String() string
}

// tunables are in the order of cluster.md 11. The profile is the last: it
// stands for values of others.
func tunables() []tunable {
	return []tunable{
		{"watchers", "an even number, 2 to 8", func(t *cluster.Tunables) quantity { return (*whole)(&t.Watchers) }},
		{"detect_target", "200ms to 1m", func(t *cluster.Tunables) quantity { return (*span)(&t.DetectTarget) }},
		{"policy", "target or path", func(t *cluster.Tunables) quantity { return (*policy)(&t.Policy) }},
		{"interval_min", "20ms to 1m", func(t *cluster.Tunables) quantity { return (*span)(&t.IntervalMin) }},
		{"interval_max", "interval_min to 1m", func(t *cluster.Tunables) quantity { return (*span)(&t.IntervalMax) }},
		{"rate_quiet", "0.1 to 100 per second", func(t *cluster.Tunables) quantity { return (*rate)(&t.RateQuiet) }},
		{"rate_max", "rate_quiet to 100 per second", func(t *cluster.Tunables) quantity { return (*rate)(&t.RateMax) }},
		{"loss_prior", "0 to 0.5", func(t *cluster.Tunables) quantity { return (*loss)(&t.LossPrior) }},
		{"loss_floor", "0 to 0.5", func(t *cluster.Tunables) quantity { return (*loss)(&t.LossFloor) }},
		{"allowance", "0s to 2m", func(t *cluster.Tunables) quantity { return (*span)(&t.Allowance) }},
		{"allowance_cap", "allowance to 2m", func(t *cluster.Tunables) quantity { return (*span)(&t.AllowanceCap) }},
		{"node_timeout", "0s to 10m; 0s: allowance", func(t *cluster.Tunables) quantity { return (*span)(&t.NodeTimeout) }},
		{"node_down_delay", "0s to 10m", func(t *cluster.Tunables) quantity { return (*span)(&t.NodeDownDelay) }},
		{"stall_max", "0s to 10m", func(t *cluster.Tunables) quantity { return (*span)(&t.StallMax) }},
		{"restart_hold", "0s to 10m", func(t *cluster.Tunables) quantity { return (*span)(&t.RestartHold) }},
		{"fan_out", "1 to 8", func(t *cluster.Tunables) quantity { return (*whole)(&t.FanOut) }},
		{"fan_out_rounds", "1 to 8", func(t *cluster.Tunables) quantity { return (*whole)(&t.FanOutRounds) }},
		{profileName, "none or aix", func(*cluster.Tunables) quantity { return new(profile) }},
	}
}

// tunableNames is all of them, in order.
func tunableNames() (names []string) {
	for _, t := range tunables() {
		names = append(names, t.name)
	}
	return names
}

// profileName is the tunable that sets others, unless they are set themselves.
const profileName = "profile"

// profiles are sets of values under one name (cluster.md 11). That of AIX has
// the names of IBM's documentation.
func profiles(name string) map[string]string {
	if name == "aix" {
		return map[string]string{"node_timeout": "30s", "node_down_delay": "10s"}
	}
	return nil
}

// tunablesOf is the settings in force where these values are written. The
// error wraps ErrUsage and names everything that is wrong.
func tunablesOf(written map[string]string) (cluster.Tunables, error) {
	in := cluster.DefaultTunables()
	all := tunables()
	var wrong []error
	for _, name := range slices.Sorted(maps.Keys(written)) {
		if !slices.ContainsFunc(all, func(t tunable) bool { return t.name == name }) {
			wrong = append(wrong, unknownTunable(name))
		}
	}
	byProfile := profiles(written[profileName])
	for _, t := range all {
		text, ok := written[t.name]
		if !ok {
			text, ok = byProfile[t.name]
		}
		if !ok {
			continue
		}
		if err := t.value(&in).parse(text); err != nil {
			wrong = append(wrong, fmt.Errorf("%s.%s %q: %w; its range is %s", tunablesSection, t.name, text, err, t.want))
		}
	}
	if len(wrong) > 0 {
		return in, fmt.Errorf("%w: %w", belfry.ErrUsage, errors.Join(wrong...))
	}
	if err := in.Validate(); err != nil {
		return in, fmt.Errorf("%w: %s", belfry.ErrUsage, byPath(err))
	}
	return in, nil
}

// byPath names the settings as people write them, one a line.
func byPath(err error) string {
	text := strings.TrimPrefix(err.Error(), belfry.ErrUsage.Error()+": "+tunablesSection+": ")
	return tunablesSection + "." + strings.ReplaceAll(text, "\n", "\n"+tunablesSection+".")
}

func unknownTunable(name string) error {
	path := tunablesSection + "." + name
	if near, ok := config.Nearest(name, tunableNames()); ok {
		return fmt.Errorf("unknown setting %s; did you mean %s.%s?", path, tunablesSection, near)
	}
	return fmt.Errorf("unknown setting %s; one of %s", path, strings.Join(tunableNames(), ", "))
}

// tunableAt finds a tunable by its path. The error says what there is.
func tunableAt(path string) (tunable, error) {
	section, name, _ := strings.Cut(path, ".")
	switch {
	case section != tunablesSection:
		return tunable{}, otherSection(section)
	case name == "":
		return tunable{}, fmt.Errorf("%w: a value is set by its name: %s.NAME, with one of %s", belfry.ErrUsage, tunablesSection, strings.Join(tunableNames(), ", "))
	}
	for _, t := range tunables() {
		if t.name == name {
			return t, nil
		}
	}
	return tunable{}, fmt.Errorf("%w: %w", belfry.ErrUsage, unknownTunable(name))
}

func otherSection(section string) error {
	if section == "roles" {
		return fmt.Errorf("%w: roles are shown by belfry role list and changed by belfry role set SUBJECT", belfry.ErrUsage)
	}
	if slices.Contains(sections, section) {
		return fmt.Errorf("%w: section %s can not be changed by this version; only %s", belfry.ErrUnsupported, section, tunablesSection)
	}
	if near, ok := config.Nearest(section, sections); ok {
		return fmt.Errorf("%w: unknown section %q; did you mean %s?", belfry.ErrUsage, section, near)
	}
	return fmt.Errorf("%w: unknown section %q; this version has only %s", belfry.ErrUsage, section, tunablesSection)
}

// normal is the text under which a value is kept; what it can not read stays,
// for the check of the whole to name.
func (t tunable) normal(text string) string {
	q := t.value(new(cluster.Tunables))
	if _, isLoss := q.(*loss); isLoss { // kept as written: 1/255 is coarser than people write
		if f, err := ratio(text); err == nil {
			return strconv.FormatFloat(f, 'f', -1, 64)
		}
		return text
	}
	if err := q.parse(text); err != nil {
		return text
	}
	return q.String()
}

// setting is a tunable for those who ask.
func (t tunable) setting(written map[string]string) api.Setting {
	defaults := cluster.DefaultTunables()
	s := api.Setting{Path: tunablesSection + "." + t.name, Default: t.value(&defaults).String(), Range: t.want}
	text, set := written[t.name]
	s.Set, s.Value = set, cmp.Or(text, profiles(written[profileName])[t.name], s.Default)
	return s
}

// The forms of values.
type (
	whole   int
	span    time.Duration
	rate    int   // per 1,000 s
	loss    uint8 // 1/255
	policy  cluster.Policy
	profile string
)

func (w *whole) parse(text string) error {
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		return errors.New("not a whole number; write for example 4")
	}
	*w = whole(n)
	return nil
}

func (w *whole) String() string { return strconv.Itoa(int(*w)) }

func (s *span) parse(text string) error {
	d, err := time.ParseDuration(text)
	if err != nil {
		return errors.New("not a duration; write for example 2.5s or 250ms")
	}
	*s = span(d)
	return nil
}

// String leaves out what is zero at the end: 1m, not 1m0s.
func (s *span) String() string {
	text := time.Duration(*s).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func (r *rate) parse(text string) error {
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(f) || math.Abs(f) > math.MaxInt32/1000 {
		return errors.New("not a number per second; write for example 2")
	}
	*r = rate(math.Round(f * 1000))
	return nil
}

func (r *rate) String() string { return strconv.FormatFloat(float64(*r)/1000, 'f', -1, 64) }

// ratio reads 0.30 or 30%.
func ratio(text string) (float64, error) {
	number, percent := strings.CutSuffix(text, "%")
	f, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return 0, errors.New("not a share; write for example 0.30 or 30%")
	}
	if percent {
		f /= 100
	}
	if !(f >= 0 && f <= 0.5) { // not a number is none
		return 0, errors.New("out of range")
	}
	return f, nil
}

func (l *loss) parse(text string) error {
	f, err := ratio(text)
	if err == nil {
		*l = loss(f * 255)
	}
	return err
}

// String rounds to hundredths, which are coarser than 1/255.
func (l *loss) String() string {
	return strconv.FormatFloat(math.Round(float64(*l)/255*100)/100, 'f', -1, 64)
}

func (p *policy) parse(text string) error {
	switch text {
	case "target":
		*p = policy(cluster.PolicyTarget)
	case "path":
		*p = policy(cluster.PolicyPath)
	default:
		return errors.New("no such policy")
	}
	return nil
}

func (p *policy) String() string {
	if cluster.Policy(*p) == cluster.PolicyPath {
		return "path"
	}
	return "target"
}

func (p *profile) parse(text string) error {
	if text != "none" && profiles(text) == nil {
		return errors.New("no such profile")
	}
	*p = profile(text)
	return nil
}

func (p *profile) String() string { return cmp.Or(string(*p), "none") }
