# Sidekiq: the worker's file (sidekiq -r), and the producer (ruby app_sidekiq.rb). The same protocol as producer.py.
require "json"
require "sidekiq"
require "sidekiq/api"

def note(what, job)
  now = Process.clock_gettime(Process::CLOCK_MONOTONIC)
  line = format("%s %s %s %d %.6f\n", what, job, ENV.fetch("COMPARE_WORKER", "-"), Process.pid, now)
  File.open(ENV.fetch("COMPARE_LEDGER"), "a") { |file| file.syswrite(line) }
end

Sidekiq.configure_server do |config|
  config.redis = { url: ENV.fetch("COMPARE_BROKER") }
  config.on(:shutdown) { note("hook", "-") }
end
Sidekiq.configure_client { |config| config.redis = { url: ENV.fetch("COMPARE_BROKER") } }

class Run
  include Sidekiq::Worker

  def perform(job, seconds, endless)
    note("start", job)
    while endless && File.foreach(ENV.fetch("COMPARE_LEDGER")).count { |line| line.start_with?("start #{job} ") } == 1
      sleep 0.05
    end
    sleep seconds
    note("end", job)
  end
end

def state(job)
  return "queued" if Sidekiq::Queue.new.any? { |entry| entry.args.first == job }
  return "queued" if Sidekiq::RetrySet.new.any? { |entry| entry.args.first == job }
  return "failed" if Sidekiq::DeadSet.new.any? { |entry| entry.args.first == job }

  "gone"
end

if $PROGRAM_NAME == __FILE__
  puts JSON.generate("ready")
  $stdout.flush
  $stdin.each_line do |line|
    what, argument = JSON.parse(line)
    if what == "enqueue"
      argument.each { |job, seconds, endless| Run.perform_async(job, seconds, endless) }
      puts JSON.generate(argument.size)
    else
      puts JSON.generate(argument.to_h { |job| [job, state(job)] })
    end
    $stdout.flush
  end
end
