package sim

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// pairs reads n1>n2, n1,n2|n3 and the like.
func (p *parser) pairs(s *Step) (err error) {
	word := p.next()
	if slices.Contains(p.s.Networks, word) { // cut net2 n1|n2
		s.Network, word = word, p.next()
	}
	word, network, on := strings.Cut(word, "@")
	if on {
		if !slices.Contains(p.s.Networks, network) {
			return p.fault("%q is no network; one of %s", network, strings.Join(p.s.Networks, ", "))
		}
		s.Network = network
	}
	from, to, ok := strings.Cut(word, ">")
	if !ok {
		if from, to, ok = strings.Cut(word, "|"); !ok {
			return p.fault("%q is no pair; n1>n2 is one way, n1|n2 both, * is any node", word)
		}
		s.Both = true
	}
	if s.From, err = p.nodes(from); err == nil {
		s.To, err = p.nodes(to)
	}
	return err
}

func (p *parser) step() (err error) {
	s := Step{Line: p.line}
	if s.At, err = p.duration(0, maxRun); err != nil {
		return err
	}
	word := p.next()
	if word == "kill" || word == "pause" {
		word += " " + p.next()
	}
	kind, ok := StepKind(0), false
	for k, w := range stepWords {
		if w == word {
			kind, ok = k, true
		}
	}
	if !ok {
		return p.fault("%q is nothing that can happen; %s", word, knownSteps())
	}
	s.Kind = kind
	if s.condition() {
		err = p.condition(&s)
	} else {
		err = p.happening(&s)
	}
	p.s.Steps = append(p.s.Steps, s)
	return err
}

func knownSteps() string {
	var words []string
	for _, w := range stepWords {
		words = append(words, w)
	}
	slices.Sort(words)
	return strings.Join(words, ", ")
}

func (p *parser) condition(s *Step) (err error) {
	if err = p.pairs(s); err != nil {
		return err
	}
	switch s.Kind {
	case StepLoss, StepDuplicate:
		s.Permille, err = p.permille()
	case StepBurst:
		err = p.burst(s)
	case StepDelay:
		if s.D, err = p.duration(0, time.Minute); err == nil && p.skip("jitter") {
			s.Jitter, err = p.duration(0, time.Minute)
		}
	case StepReorder:
		if s.Permille, err = p.permille(); err == nil {
			s.D, err = p.duration(0, time.Minute)
		}
	}
	if err == nil && p.skip("until") {
		s.Until, err = p.duration(s.At, maxRun)
	}
	return err
}

func (p *parser) burst(s *Step) (err error) {
	if err = p.expect("good"); err != nil {
		return err
	}
	if s.Good, err = p.duration(time.Millisecond, time.Hour); err != nil {
		return err
	}
	if err = p.expect("bad"); err != nil {
		return err
	}
	if s.D, err = p.duration(time.Millisecond, time.Hour); err != nil {
		return err
	}
	if err = p.expect("loss"); err != nil {
		return err
	}
	s.Permille, err = p.permille()
	return err
}

func (p *parser) happening(s *Step) (err error) {
	if s.Nodes, err = p.nodes(p.next()); err != nil {
		return err
	}
	switch s.Kind {
	case StepPauseProcess, StepPauseVM, StepPauseObserver:
		s.D, err = p.duration(time.Millisecond, time.Hour)
	case StepFlood:
		word := p.next()
		rate, per := strings.CutSuffix(word, "/s")
		n, bad := strconv.Atoi(rate)
		if !per || bad != nil || n < 1 || n > 1_000_000 {
			return p.fault("%q is no rate from 1/s to 1000000/s", word)
		}
		s.Rate = n
		s.D, err = p.duration(time.Millisecond, maxRun)
	case StepClock:
		s.D, err = p.duration(-maxRun, maxRun)
	case StepCarrier:
		err = p.carrier(s)
	}
	return err
}
